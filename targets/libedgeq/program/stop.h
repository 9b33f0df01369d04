/* How edgeq-run stops: one sentence on stderr and an exit code. The process is short-lived, so nothing is freed on the
 * way out. */
#ifndef EDGEQ_STOP_H
#define EDGEQ_STOP_H

#include "edgeq.h"

enum { EXIT_FAULT = 1, EXIT_USAGE = 2 };

/* Prints "edgeq-run: <message>" and exits with `code`. */
_Noreturn void stop(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Stops the program with what the session says, unless the status is EDGEQ_OK. */
void check(edgeq_status status, const edgeq_session *session);

/* The exit code of a failure. */
int exit_code(edgeq_status status);

/* Zeroed memory for `count` items of `size` bytes; stops the program if there is none. */
void *reserve(size_t count, size_t size);

/* More memory with what was in `old`. */
void *grow(void *old, size_t size);

#endif
