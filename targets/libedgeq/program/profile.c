#include "profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "fail.h"

enum { KERNEL_RUNS = 5 };

typedef struct {
  char *name;
  long long calls; /* in one run */
  long long bytes, weight_bytes;
  double seconds[KERNEL_RUNS];
} Kernel;

typedef struct {
  Kernel *kernels;
  size_t count, room;
  int run;
  double started;
} Kernels;

static Kernel *find(Kernels *kernels, const char *name, size_t length) {
  for (size_t i = 0; i < kernels->count; i++) {
    const char *known = kernels->kernels[i].name;
    if (strlen(known) == length && memcmp(known, name, length) == 0) return &kernels->kernels[i];
  }
  if (kernels->count == kernels->room) {
    kernels->room = 2 * kernels->room + 16;
    Kernel *larger = allocate(kernels->room, sizeof *larger);
    if (kernels->count > 0) memcpy(larger, kernels->kernels, kernels->count * sizeof *larger);
    free(kernels->kernels);
    kernels->kernels = larger;
  }
  Kernel *kernel = &kernels->kernels[kernels->count++];
  kernel->name = allocate(length + 1, 1);
  memcpy(kernel->name, name, length);
  return kernel;
}

static void on_kernel(void *context, const KernelEvent *event) {
  Kernels *kernels = context;
  if (event->before) {
    kernels->started = now();
    return;
  }
  double seconds = now() - kernels->started;
  Kernel *kernel = find(kernels, event->name, event->length);
  kernel->seconds[kernels->run] += seconds;
  if (kernels->run > 0) return; /* every run makes the same calls */
  kernel->calls++;
  kernel->bytes += (long long)event->bytes;
  kernel->weight_bytes += (long long)event->weight_bytes;
}

static double timed_run(Model *model, FunctionName name, const Array *inputs) {
  double start = now();
  Outputs outputs = model_run(model, name, inputs);
  double seconds = now() - start;
  outputs_release(model, &outputs);
  return seconds;
}

/* Most bytes of memory that this process ever had, or 0 where the kernel does not say. */
static long long peak_bytes(void) {
  FILE *status = fopen("/proc/self/status", "r");
  char line[256];
  long long kilobytes = 0;
  while (status != NULL && fgets(line, sizeof line, status) != NULL) {
    if (sscanf(line, "VmHWM: %lld kB", &kilobytes) == 1) break;
  }
  if (status != NULL) fclose(status);
  return kilobytes * 1024;
}

static void print_seconds(const double *seconds, int64_t count) {
  printf("\"seconds\": [");
  for (int64_t i = 0; i < count; i++) printf(i > 0 ? ", %.9f" : "%.9f", seconds[i]);
  putchar(']');
}

void profile_set(Model *model, FunctionName name, const Array *inputs, int64_t runs) {
  double *seconds = allocate((size_t)runs, sizeof *seconds);
  if (runs > 0) timed_run(model, name, inputs);
  for (int64_t i = 0; i < runs; i++) seconds[i] = timed_run(model, name, inputs);
  printf("{\"peak_bytes\": %lld, ", peak_bytes());
  print_seconds(seconds, runs);
  free(seconds);
  Kernels kernels = {.count = 0};
  int kernel_runs = runs == 0 ? 1 : runs < KERNEL_RUNS ? (int)runs : KERNEL_RUNS;
  model_watch_kernels(model, on_kernel, &kernels);
  for (kernels.run = 0; kernels.run < kernel_runs; kernels.run++) timed_run(model, name, inputs);
  printf(", \"kernels\": [");
  for (size_t i = 0; i < kernels.count; i++) {
    const Kernel *kernel = &kernels.kernels[i];
    /* Names of kernels are those of C functions: nothing in them needs an escape. */
    printf(i > 0 ? ", {\"name\": \"%s\"" : "{\"name\": \"%s\"", kernel->name);
    printf(", \"calls\": %lld, \"bytes\": %lld, \"weight_bytes\": %lld, ", kernel->calls, kernel->bytes,
           kernel->weight_bytes);
    print_seconds(kernel->seconds, kernel_runs);
    putchar('}');
  }
  puts("]}");
}
