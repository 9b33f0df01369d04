#include "pool.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "pause.h"
#include "platform.h"

enum {
  PIECES_PER_THREAD = 4,
  LINE = 64,          /* bytes that processors exchange at once */
  ERROR_SIZE = 256,
  IDLE_LOOKS = 4000,  /* for work before a thread sleeps: some tens of microseconds */
  OWN_LOOKS = 64,     /* of them at its own pieces alone, before it looks at those of all threads once */
  WAIT_LOOKS = 4000,  /* for the end of others' pieces before the caller sleeps */
  MOST_THREADS = 1024,
  CALLER = 0,         /* place of its pieces and of its workspace, which it has throughout */
};

/* One kernel's work. Everything here is written before it is published, and changed only when all pieces are done. */
typedef struct {
  Task task;
  void *closure;
  TaskGroup group;
} Work;

/* One thread's part of it. Pieces that nobody has claimed go from the low half up to the high half. Their thread claims at
 * the front, and has the line for itself until it is done with them; others then claim at the back. Whoever has the line
 * has the work as well. */
typedef struct {
  _Alignas(LINE) _Atomic uint64_t unclaimed;
  Work work;
} Share;

typedef struct {
  Pool *pool;
  size_t place;
  Thread thread;
} Worker;

struct Pool {
  Share *shares;                        /* one a thread, the caller's first: each works on neighbouring data */
  size_t share_count;
  _Alignas(LINE) atomic_int unfinished; /* pieces */
  _Alignas(LINE) atomic_int sleeping;   /* threads that wait for work */
  atomic_bool caller_waits, failed, has_error, stops;
  Lock lock;
  Condition work_comes, work_ends;
  Worker *workers;
  int wanted, started; /* threads beside the caller's */
  bool ready;          /* lock and conditions are there */
  int32_t *processors;
  int32_t processor_count;
  edgeq_parallel_for parallel_for;
  void *parallel_context;
  char *workspace;
  size_t workspace_bytes; /* of each place */
  char error[ERROR_SIZE];
};

/* Kernels do not say for whom they call, so every thread remembers whose work it does, and what it has of the
 * workspace. */
static _Thread_local PoolThread own;

/* ---- pieces ---- */

static uint64_t range(uint32_t front, uint32_t back) { return (uint64_t)back << 32 | front; }

/* Claims one of a share's pieces; returns its number, or -1 if none is left. */
static int claim(Share *share, bool at_front) {
  uint64_t seen = atomic_load_explicit(&share->unclaimed, memory_order_relaxed);
  for (;;) {
    uint32_t front = (uint32_t)seen, back = (uint32_t)(seen >> 32);
    if (front >= back) return -1;
    uint64_t next = at_front ? range(front + 1, back) : range(front, back - 1);
    if (atomic_compare_exchange_weak_explicit(&share->unclaimed, &seen, next, memory_order_acquire,
                                              memory_order_relaxed)) {
      return (int)(at_front ? front : back - 1);
    }
  }
}

/* Gives this thread a place of the workspace. */
static void use_place(const Pool *pool, size_t place) {
  own.free = pool->workspace_bytes > 0 ? pool->workspace + place * pool->workspace_bytes : NULL;
  own.end = pool->workspace_bytes > 0 ? own.free + pool->workspace_bytes : NULL;
}

static void run_piece(Pool *pool, Work *work, int piece, size_t place) {
  own.inside_piece = true;
  if (place != CALLER) use_place(pool, place);
  if (work->task(piece, &work->group, work->closure) != 0) atomic_store(&pool->failed, true);
  own.inside_piece = false;
}

static void finish(Pool *pool, int pieces, size_t place) {
  if (atomic_fetch_sub(&pool->unfinished, pieces) == pieces && place != CALLER && atomic_load(&pool->caller_waits)) {
    lock_take(&pool->lock);
    condition_wake_one(&pool->work_ends);
    lock_give(&pool->lock);
  }
}

/* Claims and runs pieces until none is left: first a thread's own, which are counted together, then those of others. */
static void help(Pool *pool, size_t place) {
  Share *share = &pool->shares[place];
  int done = 0;
  for (int piece; (piece = claim(share, true)) >= 0; done++) run_piece(pool, &share->work, piece, place);
  if (done > 0) finish(pool, done, place);
  for (size_t next = 1; next < pool->share_count; next++) {
    Share *other = &pool->shares[(place + next) % pool->share_count];
    for (int piece; (piece = claim(other, false)) >= 0; finish(pool, 1, place)) {
      run_piece(pool, &other->work, piece, place);
    }
  }
}

static bool has_pieces(Share *share) {
  uint64_t seen = atomic_load(&share->unclaimed);
  return (uint32_t)seen < (uint32_t)(seen >> 32);
}

static bool has_work(Pool *pool) {
  for (size_t place = 0; place < pool->share_count; place++) {
    if (has_pieces(&pool->shares[place])) return true;
  }
  return false;
}

/* ---- threads ---- */

static void sleep_until_work(Pool *pool) {
  lock_take(&pool->lock);
  atomic_fetch_add(&pool->sleeping, 1);
  while (!has_work(pool) && !atomic_load(&pool->stops)) condition_wait(&pool->work_comes, &pool->lock);
  atomic_fetch_sub(&pool->sleeping, 1);
  lock_give(&pool->lock);
}

/* The next kernel's work comes soon, and often the next call: to wake a thread takes longer than to wait for it. Whoever
 * looks at another thread's pieces takes their line from it, so that is done seldom. */
static bool work_comes_soon(Pool *pool, size_t place) {
  for (int looks = 1; looks <= IDLE_LOOKS; looks++) {
    if (has_pieces(&pool->shares[place]) || (looks % OWN_LOOKS == 0 && has_work(pool))) return true;
    pause_briefly();
  }
  return false;
}

static void *serve(void *argument) {
  Worker *worker = argument;
  Pool *pool = worker->pool;
  own.pool = pool;
  while (!atomic_load(&pool->stops)) {
    help(pool, worker->place);
    if (!work_comes_soon(pool, worker->place)) sleep_until_work(pool);
  }
  return NULL;
}

static void start_threads(Pool *pool) {
  while (pool->started < pool->wanted) {
    Worker *worker = &pool->workers[pool->started];
    *worker = (Worker){.pool = pool, .place = (size_t)pool->started + 1};
    if (!thread_start(&worker->thread, serve, worker)) break; /* fewer threads only make it slower */
    if (pool->processor_count > 0) thread_bind(&worker->thread, pool->processors, pool->processor_count);
    pool->started++;
  }
  pool->wanted = pool->started;
}

static bool make_ready(Pool *pool) {
  pool->ready = lock_make(&pool->lock) && condition_make(&pool->work_comes) && condition_make(&pool->work_ends);
  return pool->ready;
}

static void pool_end(void *argument) {
  Pool *pool = argument;
  if (!pool->ready) return;
  lock_take(&pool->lock);
  atomic_store(&pool->stops, true);
  condition_wake_all(&pool->work_comes);
  lock_give(&pool->lock);
  for (int i = 0; i < pool->started; i++) thread_join(&pool->workers[i].thread);
  condition_end(&pool->work_ends);
  condition_end(&pool->work_comes);
  lock_end(&pool->lock);
}

Pool *pool_new(Memory *memory, const edgeq_session_options *options) {
  int threads = options->threads > 0 ? options->threads : available_cores();
  if (threads > MOST_THREADS) threads = MOST_THREADS;
  int32_t count = options->processors != NULL && options->processor_count > 0 ? options->processor_count : 0;
  Worker *workers = allocate(memory, (size_t)threads, sizeof *workers);
  Share *shares = allocate_data(memory, (size_t)threads * sizeof *shares);
  int32_t *processors = allocate(memory, (size_t)count, sizeof *processors);
  if (count > 0) memcpy(processors, options->processors, (size_t)count * sizeof *processors);
  /* The newest block, so that it is the first to be given back. */
  Pool *pool = allocate_with(memory, sizeof *pool, pool_end);
  pool->workers = workers;
  pool->shares = shares;
  pool->share_count = (size_t)threads;
  pool->wanted = threads - 1;
  pool->processors = processors;
  pool->processor_count = count;
  pool->parallel_for = options->parallel_for;
  pool->parallel_context = options->parallel_context;
  if (!make_ready(pool)) fail(memory, EDGEQ_FAILED, "the system gives no locks; close other programs and try again");
  return pool;
}

void pool_after_fork(Pool *pool) {
  pool->started = 0;
  for (size_t place = 0; place < pool->share_count; place++) atomic_store(&pool->shares[place].unclaimed, 0);
  atomic_store(&pool->unfinished, 0);
  atomic_store(&pool->sleeping, 0);
  atomic_store(&pool->caller_waits, false);
  atomic_store(&pool->stops, false);
  make_ready(pool); /* on top of locks that a thread of the parent may hold */
}

/* ---- kernels ---- */

PoolThread pool_enter(Pool *pool) {
  PoolThread before = own;
  own = (PoolThread){.pool = pool};
  pool->error[0] = '\0';
  atomic_store(&pool->has_error, false);
  return before;
}

void pool_leave(PoolThread before) { own = before; }

static void wait_for_others(Pool *pool) {
  for (int looks = 0; looks < WAIT_LOOKS; looks++) {
    if (atomic_load_explicit(&pool->unfinished, memory_order_acquire) == 0) return;
    pause_briefly();
  }
  lock_take(&pool->lock);
  atomic_store(&pool->caller_waits, true);
  while (atomic_load(&pool->unfinished) > 0) condition_wait(&pool->work_ends, &pool->lock);
  atomic_store(&pool->caller_waits, false);
  lock_give(&pool->lock);
}

static void run_given_piece(void *work, int32_t number) {
  Pool *pool = work;
  PoolThread before = own;
  own = (PoolThread){.pool = pool};
  /* Nobody says on which thread this runs: every piece has a place of its own, after that of the caller. */
  run_piece(pool, &pool->shares[CALLER].work, number, (size_t)number + 1);
  own = before;
}

static void run_together(Pool *pool, Work work) {
  uint32_t count = (uint32_t)pool->wanted + 1, pieces = (uint32_t)work.group.task_count, back = pieces;
  atomic_store_explicit(&pool->unfinished, work.group.task_count, memory_order_relaxed);
  for (uint32_t place = count; place-- > 0;) {
    uint32_t front = (uint32_t)((uint64_t)place * pieces / count);
    pool->shares[place].work = work;
    atomic_store(&pool->shares[place].unclaimed, range(front, back));
    back = front;
  }
  if (atomic_load(&pool->sleeping) > 0) {
    lock_take(&pool->lock);
    condition_wake_all(&pool->work_comes);
    lock_give(&pool->lock);
  }
  help(pool, CALLER);
  wait_for_others(pool);
}

size_t pool_places(const Pool *pool) {
  size_t threads = (size_t)pool->wanted + 1;
  return pool->parallel_for != NULL ? PIECES_PER_THREAD * threads + 1 : threads;
}

void pool_use_workspace(Pool *pool, char *memory, size_t bytes) {
  pool->workspace = memory;
  pool->workspace_bytes = bytes;
  use_place(pool, CALLER);
}

static size_t rounded(uint64_t bytes) {
  return (size_t)(bytes + EDGEQ_ALIGNMENT - 1) / EDGEQ_ALIGNMENT * EDGEQ_ALIGNMENT;
}

void *pool_allocate(int device, int number, uint64_t bytes, int code, int bits) {
  (void)device, (void)number, (void)code, (void)bits;
  if (own.free == NULL || bytes > (size_t)(own.end - own.free) || rounded(bytes) > (size_t)(own.end - own.free)) {
    return NULL;
  }
  char *taken = own.free;
  own.free += rounded(bytes);
  return taken;
}

int pool_release(int device, int number, void *memory) {
  (void)device, (void)number;
  own.free = memory;
  return 0;
}

int pool_launch(Task task, void *closure, int tasks) {
  Pool *pool = own.pool;
  bool alone = pool == NULL || own.inside_piece || pool->wanted == 0;
  /* A task that asks for more parts than there are places runs them one after the other. */
  alone = alone || (tasks > 0 && pool->parallel_for != NULL && (size_t)tasks >= pool_places(pool));
  int pieces = tasks > 0 ? tasks : alone ? 1 : PIECES_PER_THREAD * (pool->wanted + 1);
  if (alone || pieces == 1) {
    TaskGroup group = {NULL, pieces};
    int failed = 0;
    for (int piece = 0; piece < pieces && !failed; piece++) failed = task(piece, &group, closure);
    return failed;
  }
  Work work = {task, closure, {NULL, pieces}};
  atomic_store(&pool->failed, false);
  if (pool->parallel_for != NULL) {
    pool->shares[CALLER].work = work;
    pool->parallel_for(pool->parallel_context, pieces, run_given_piece, pool);
  } else {
    if (pool->started < pool->wanted) start_threads(pool);
    run_together(pool, work);
  }
  return atomic_load(&pool->failed) ? -1 : 0;
}

void pool_note_error(const char *kind, const char **parts, int32_t count) {
  Pool *pool = own.pool;
  size_t used = 0;
  (void)kind;
  if (pool == NULL || atomic_exchange(&pool->has_error, true)) return;
  for (int32_t i = 0; i < count; i++) {
    size_t size = strlen(parts[i]), room = ERROR_SIZE - 1 - used;
    memcpy(pool->error + used, parts[i], size < room ? size : room);
    used += size < room ? size : room;
  }
  pool->error[used] = '\0';
}

const char *pool_error(const Pool *pool) { return pool->error[0] != '\0' ? pool->error : "it gave no reason"; }
