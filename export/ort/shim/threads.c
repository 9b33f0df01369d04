#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  void *sync_handle;
  int32_t num_task;
} ParallelGroup; /* TVMParallelGroupEnv */

typedef int (*Task)(int task, ParallelGroup *group, void *closure);

typedef struct {
  Task run;
  void *closure;
  ParallelGroup group;
  atomic_int failed;
} Launch;

/* Each compiled family holds these pointers, and the linker makes one of all. */
extern int (*__TVMBackendParallelLaunch)(Task, void *, int);
extern void *(*__TVMBackendAllocWorkspace)(int device, int number, uint64_t bytes, int code, int bits);
extern int (*__TVMBackendFreeWorkspace)(int device, int number, void *memory);

static _Thread_local const OrtApi *thread_api;
static _Thread_local const OrtKernelContext *thread_context;
static _Thread_local char error_text[256];

void use_threads_of(const OrtApi *api, const OrtKernelContext *context) {
  thread_api = api;
  thread_context = context;
}

/* ONNX Runtime does not tell how many threads a session has: as many parts as processors suit any number of them. */
static int processors(void) {
  static atomic_int known;
  int count = atomic_load_explicit(&known, memory_order_relaxed);
  if (count == 0) {
    cpu_set_t set;
    count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    atomic_store_explicit(&known, count, memory_order_relaxed);
  }
  return count;
}

static void run_part(void *user, size_t part) {
  Launch *launch = user;
  if (launch->run((int)part, &launch->group, launch->closure) != 0) atomic_store(&launch->failed, 1);
}

static int parallel_launch(Task run, void *closure, int tasks) {
  const OrtApi *api = thread_api;
  Launch launch = {run, closure, {NULL, api == NULL ? 1 : tasks > 0 ? tasks : processors()}, 0};
  if (launch.group.num_task == 1) {
    run_part(&launch, 0);
  } else {
    OrtStatus *status =
        api->KernelContext_ParallelFor(thread_context, run_part, (size_t)launch.group.num_task, 0, &launch);
    if (status != NULL) {
      api->ReleaseStatus(status);
      return -1;
    }
  }
  return atomic_load(&launch.failed) ? -1 : 0;
}

/* Memory of one task of a kernel, which reports it if there is none. */
static void *allocate_workspace(int device, int number, uint64_t bytes, int code, int bits) {
  (void)device, (void)number, (void)code, (void)bits;
  return aligned_alloc(KERNEL_ALIGNMENT, (size_t)(bytes + KERNEL_ALIGNMENT - 1) / KERNEL_ALIGNMENT * KERNEL_ALIGNMENT);
}

static int free_workspace(int device, int number, void *memory) {
  (void)device, (void)number;
  free(memory);
  return 0;
}

void connect_kernels(void) {
  __TVMBackendParallelLaunch = parallel_launch;
  __TVMBackendAllocWorkspace = allocate_workspace;
  __TVMBackendFreeWorkspace = free_workspace;
}

__attribute__((visibility("hidden"))) void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts,
                                                                             int32_t count) {
  size_t used = 0;
  (void)kind;
  error_text[0] = '\0';
  for (int32_t i = 0; i < count && used + 1 < sizeof error_text; i++) {
    int added = snprintf(error_text + used, sizeof error_text - used, "%s", parts[i]);
    used += added > 0 ? (size_t)added : 0;
  }
}

void clear_kernel_error(void) { error_text[0] = '\0'; }

const char *kernel_error(void) { return error_text[0] != '\0' ? error_text : "no reason given"; }

typedef struct {
  void *memory[SCRATCH_SLOTS];
  size_t size[SCRATCH_SLOTS];
} Scratch;

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void free_scratch(void *held) {
  Scratch *own = held;
  for (int slot = 0; slot < SCRATCH_SLOTS; slot++) free(own->memory[slot]);
  free(own);
}

/* The library is linked so that it is never unloaded: this function may be called when any thread ends. */
static void make_scratch_key(void) { pthread_key_create(&scratch_key, free_scratch); }

void *scratch(int slot, size_t size) {
  pthread_once(&scratch_once, make_scratch_key);
  Scratch *own = pthread_getspecific(scratch_key);
  if (own == NULL) {
    own = calloc(1, sizeof *own);
    if (own == NULL || pthread_setspecific(scratch_key, own) != 0) {
      free(own);
      return NULL;
    }
  }
  if (own->size[slot] < size) {
    size_t rounded = (size + 4095) / 4096 * 4096;
    free(own->memory[slot]);
    own->memory[slot] = aligned_alloc(KERNEL_ALIGNMENT, rounded);
    own->size[slot] = own->memory[slot] == NULL ? 0 : rounded;
  }
  return own->memory[slot];
}
