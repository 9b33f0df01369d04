/* How edgeq-run stops: one sentence on stderr and an exit code. The process is short-lived, so nothing is
 * freed on the way out. */
#ifndef EDGEQ_FAIL_H
#define EDGEQ_FAIL_H

#include <stddef.h>

enum { EXIT_FAULT = 1, EXIT_USAGE = 2 };

/* Prints "edgeq-run: <message>" and exits with `code`. */
_Noreturn void fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Zeroed memory for `count` items of `size` bytes; stops the program if there is none. */
void *allocate(size_t count, size_t size);

/* Like allocate, at an address that compiled kernels may use: a multiple of DATA_ALIGNMENT. */
enum { DATA_ALIGNMENT = 64 };
void *allocate_data(size_t bytes);

#endif
