/* The caches of a decoder: memory that compiled code changes in place from call to call. */
#ifndef EDGEQ_STATE_H
#define EDGEQ_STATE_H

#include "bundle.h"

typedef struct {
  const Generation *generation;
  Array *arrays;    /* as many as the bundle's caches */
  size_t *capacity; /* bytes of each, for all rows that it was made for */
} State;

/* Empty caches for `batch` sequences. The system hands out a page when it is first written, so a short text does not
 * take the memory of the whole context. */
State state_new(const Bundle *bundle, int64_t batch);

/* Serves the first `batch` sequences only, at most as many as it was made for. */
void state_use_rows(State *state, int64_t batch);

/* Keeps `count` sequences, closed up, and forgets the others: ascending row numbers, and how many tokens each of them
 * and its source holds. */
void state_keep(State *state, const size_t *rows, size_t count, const int64_t *lengths, const int64_t *source_lengths);

/* Gives the only source of the state, of `length` tokens, to `batch` sequences. */
void state_repeat_source(State *state, int64_t batch, int64_t length);

/* Makes each sequence go on from another one of the same source; every one holds `length` tokens. */
void state_reorder(State *state, const size_t *rows, int64_t length);

void state_release(State *state);

#endif
