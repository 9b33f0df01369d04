/* Latency of whole calls and of every kernel in them, and the memory they took. */
#ifndef EDGEQ_PROFILE_H
#define EDGEQ_PROFILE_H

#include "edgeq.h"

/* What a set of inputs costs: the seconds of `runs` calls after one to warm up, then of every kernel in some more.
 * With 0 runs there is one call, which gives kernels only. Prints one JSON line. */
void profile_set(const edgeq_model *model, edgeq_session *session, int32_t function, const edgeq_tensor *inputs,
                 int64_t runs);

#endif
