/* The caches of a decoder: memory that compiled code changes in place from call to call. */
#ifndef EDGEQ_STATE_H
#define EDGEQ_STATE_H

#include "bundle.h"

/* Empty caches for `batch` sequences, as many arrays as the bundle's state. The system hands out a page when it
 * is first written, so a short text does not take the memory of the whole context. */
Array *state_new(const Bundle *bundle, int64_t batch);

void state_release(const Bundle *bundle, Array *state);

#endif
