/* What runs a model: memory of a call, caches, threads. */
#ifndef EDGEQ_SESSION_H
#define EDGEQ_SESSION_H

#include <stdatomic.h>

#include "model.h"
#include "pool.h"
#include "state.h"

enum { KEPT_SHAPES = 8 };

typedef struct Generator Generator;

struct edgeq_session {
  const edgeq_model *model;
  Failure failure;
  Memory memory;     /* for as long as the session lasts */
  Memory call;       /* until the next call */
  Memory cache;      /* of the caches, until the session is reset */
  Memory generation; /* until other texts are started */
  atomic_int busy;
  atomic_bool cancelled;
  atomic_long process; /* that the threads belong to */
  Pool *pool;
  State *state;                    /* NULL before it is needed */
  Prepared *prepared[KEPT_SHAPES]; /* NULL where there is none */
  uint64_t uses;
  edgeq_tensor *inputs, *caches;   /* of the call: room for those of any function */
  char *arena;
  size_t arena_bytes;
  bool arena_is_given;
  void (*watch)(void *context, const edgeq_kernel_time *kernel);
  void *watch_context;
  Generator *generator; /* NULL if no texts are started */
};

/* Makes the caches those of `batch` sequences. */
void reset_state(edgeq_session *session, int64_t batch);

/* Runs a function on inputs of the right number and order; see edgeq_run. `where` begins the sentence if they make no
 * sense. The state is used as it is. */
void run_function(edgeq_session *session, int32_t number, const edgeq_tensor *inputs, edgeq_tensor *outputs,
                  const char *where);

/* Bytes of memory that run_function needs for inputs of these shapes. */
uint64_t needed_bytes(edgeq_session *session, int32_t number, const edgeq_tensor *inputs);

/* Fails with EDGEQ_CANCELLED if somebody wants the call to end. */
void check_cancelled(const edgeq_session *session);

#endif
