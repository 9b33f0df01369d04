/* Latency of whole calls and of every kernel in them, and the memory they took. */
#ifndef EDGEQ_PROFILE_H
#define EDGEQ_PROFILE_H

#include "bundle.h"
#include "model.h"

/* What a set of inputs costs: the seconds of `runs` calls after one to warm up, then of every kernel in some more.
 * With 0 runs there is one call, which gives kernels only. Prints one JSON line; call it once a program, because the
 * clock is read around every kernel from then on. */
void profile_set(Model *model, FunctionName name, const Array *inputs, int64_t runs);

#endif
