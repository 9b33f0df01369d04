/* Kernels that are linked into the program, which then loads no code. */
#ifndef EDGEQ_LINKED_KERNELS_H
#define EDGEQ_LINKED_KERNELS_H

#include <edgeq.h>

/* The table for edgeq_open_options.kernels, or NULL if the program has none. */
const edgeq_kernel *linked_kernels(size_t *count);

#endif
