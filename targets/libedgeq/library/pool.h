/* The threads of a session. A kernel's work is cut into pieces; threads claim their own one by one, and then those of
 * others: the caller does what nobody has begun, and waits only for pieces that a thread is at work on, never for a thread that the system has not
 * scheduled yet. A thread without work looks for some tens of microseconds, then it sleeps. */
#ifndef EDGEQ_POOL_H
#define EDGEQ_POOL_H

#include <stdbool.h>

#include "kernel.h"
#include "memory.h"

typedef struct Pool Pool;

/* Threads with the caller's among them as many as the options say; they start with the first work. Ends with
 * release(). */
Pool *pool_new(Memory *memory, const edgeq_session_options *options);

/* For whom a thread runs kernels. */
typedef struct {
  Pool *pool;
  bool inside_piece;
  char *free, *end; /* what it has of the workspace */
} PoolThread;

/* Between these two, kernels that the calling thread runs may use the pool. The second gets what the first returned. */
PoolThread pool_enter(Pool *pool);
void pool_leave(PoolThread before);

/* Memory of the threads' own that kernels ask for: how many places there must be, and where they are, of `bytes` bytes
 * each. */
size_t pool_places(const Pool *pool);
void pool_use_workspace(Pool *pool, char *memory, size_t bytes);

/* What kernels call: to run the parts of a task, and to take memory for a part and give it back, the newest first. */
int pool_launch(Task task, void *closure, int tasks);
void *pool_allocate(int device, int number, uint64_t bytes, int code, int bits);
int pool_release(int device, int number, void *memory);

/* What kernels call to say what is wrong with their arguments: the parts of a sentence. */
void pool_note_error(const char *kind, const char **parts, int32_t count);

/* The newest such sentence since pool_enter. */
const char *pool_error(const Pool *pool);

/* For the child of a fork: forgets threads that it does not have. */
void pool_after_fork(Pool *pool);

#endif
