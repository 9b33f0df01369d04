/* What compiled kernels expect of TVM's runtime: threads, and a place for error messages. Here the threads are those
 * of the ONNX Runtime session, and there is scratch memory for each thread that calls. */
#ifndef EDGEQ_ORT_THREADS_H
#define EDGEQ_ORT_THREADS_H

#include "ort_abi.h"

/* Kernels that this thread calls from now on run on the session's threads, or on this one alone if `api` is NULL. */
void use_threads_of(const OrtApi *api, const OrtKernelContext *context);

/* Says which functions start the threads of kernels and give them memory; to be called once before any kernel. */
void connect_kernels(void);

void clear_kernel_error(void);
const char *kernel_error(void);

enum { SCRATCH_SLOTS = 5, KERNEL_ALIGNMENT = 64 };

/* At least `size` bytes of this thread, aligned for kernels and kept until the slot is asked for again; NULL if there
 * is no memory. */
void *scratch(int slot, size_t size);

#endif
