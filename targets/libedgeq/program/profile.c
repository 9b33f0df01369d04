#include "profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stop.h"
#include "output.h"
#include "system.h"

enum { KERNEL_RUNS = 5 };

typedef struct {
  const char *name; /* the model's */
  long long calls; /* in one run */
  long long bytes, weight_bytes;
  double seconds[KERNEL_RUNS];
} Kernel;

typedef struct {
  Kernel *kernels;
  size_t count, room;
  int run;
} Kernels;

static Kernel *find(Kernels *kernels, const char *name) {
  for (size_t i = 0; i < kernels->count; i++) {
    if (strcmp(kernels->kernels[i].name, name) == 0) return &kernels->kernels[i];
  }
  if (kernels->count == kernels->room) {
    kernels->room = 2 * kernels->room + 16;
    kernels->kernels = grow(kernels->kernels, kernels->room * sizeof *kernels->kernels);
  }
  Kernel *kernel = &kernels->kernels[kernels->count++];
  *kernel = (Kernel){.name = name};
  return kernel;
}

static void on_kernel(void *context, const edgeq_kernel_time *time) {
  Kernels *kernels = context;
  Kernel *kernel = find(kernels, time->name);
  kernel->seconds[kernels->run] += time->seconds;
  if (kernels->run > 0) return; /* every run makes the same calls */
  kernel->calls++;
  kernel->bytes += (long long)time->bytes;
  kernel->weight_bytes += (long long)time->weight_bytes;
}

typedef struct {
  edgeq_session *session;
  int32_t function;
  const edgeq_tensor *inputs;
  edgeq_tensor *outputs;
} Call;

static double timed_run(const Call *call) {
  double start = now();
  check(edgeq_run(call->session, call->function, call->inputs, call->outputs), call->session);
  return now() - start;
}

static void print_seconds(const double *seconds, int64_t count) {
  printf("\"seconds\": [");
  for (int64_t i = 0; i < count; i++) printf(i > 0 ? ", %.9f" : "%.9f", seconds[i]);
  putchar(']');
}

void profile_set(const edgeq_model *model, edgeq_session *session, int32_t function, const edgeq_tensor *inputs,
                 int64_t runs) {
  edgeq_tensor *outputs = reserve(edgeq_output_count(model, function), sizeof *outputs);
  const Call call = {session, function, inputs, outputs};
  double *seconds = reserve((size_t)runs, sizeof *seconds);
  if (runs > 0) timed_run(&call);
  for (int64_t i = 0; i < runs; i++) seconds[i] = timed_run(&call);
  long long peak = peak_bytes();
  uint64_t arena = 0;
  check(edgeq_arena_bytes(session, function, inputs, &arena), session);
  printf("{\"peak_bytes\": %lld, \"arena_bytes\": %llu, \"code_address\": %llu, ", peak, (unsigned long long)arena,
         (unsigned long long)(uintptr_t)edgeq_code(model));
  print_seconds(seconds, runs);
  free(seconds);
  Kernels kernels = {.count = 0};
  int kernel_runs = runs == 0 ? 1 : runs < KERNEL_RUNS ? (int)runs : KERNEL_RUNS;
  check(edgeq_watch_kernels(session, on_kernel, &kernels), session);
  for (kernels.run = 0; kernels.run < kernel_runs; kernels.run++) timed_run(&call);
  check(edgeq_watch_kernels(session, NULL, NULL), session);
  printf(", \"kernels\": [");
  for (size_t i = 0; i < kernels.count; i++) {
    const Kernel *kernel = &kernels.kernels[i];
    printf(i > 0 ? ", {\"name\": " : "{\"name\": ");
    print_json_text(kernel->name, strlen(kernel->name));
    printf(", \"calls\": %lld, \"bytes\": %lld, \"weight_bytes\": %lld, ", kernel->calls, kernel->bytes,
           kernel->weight_bytes);
    print_seconds(kernel->seconds, kernel_runs);
    putchar('}');
  }
  puts("]}");
  free(kernels.kernels);
  free(outputs);
}
