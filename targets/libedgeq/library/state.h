/* The caches of a decoder: memory that kernels change in place from call to call. */
#ifndef EDGEQ_STATE_H
#define EDGEQ_STATE_H

#include "model.h"

typedef struct {
  const edgeq_model *model;
  int64_t rows, capacity; /* sequences that it serves, and that it has memory for */
  edgeq_tensor *tensors;  /* as many as the caches of `main`: the rows that it serves */
  char **whole;           /* where all rows of each cache begin */
  char *spare;            /* memory for one cache, where rows change places; NULL before it is needed */
} State;

/* Type, shape and bytes of a cache for `batch` sequences; fails with `status` if they do not fit memory. */
edgeq_tensor state_tensor(const Memory *memory, const edgeq_model *model, size_t cache, int64_t batch,
                          edgeq_status status);

/* Caches for `batch` sequences, given back with release(). */
State *state_new(Memory *memory, const edgeq_model *model, int64_t batch);

/* Serves `batch` sequences from row `first` on, at most as many as it was made for; the other rows keep what they hold. */
void state_use_rows(State *state, int64_t first, int64_t batch);

/* Keeps `count` sequences, closed up, and forgets the others: ascending row numbers, and how many tokens each of them
 * and its encoder input holds. All of this and the next functions count rows from the first one of the caches. */
void state_keep(State *state, const size_t *rows, size_t count, const int64_t *lengths, const int64_t *source_lengths);

/* Gives the only encoder input of the state, of `length` tokens, to `batch` sequences. */
void state_repeat_source(State *state, int64_t batch, int64_t length);

/* Makes each sequence go on from another one of the same encoder input; every one holds `length` tokens.
 * state_make_spare must have been called. */
void state_make_spare(Memory *memory, State *state);
void state_reorder(State *state, const size_t *rows, int64_t length);

#endif
