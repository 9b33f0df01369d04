#include "state.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fail.h"

static int64_t size_of(const Bundle *bundle, const Spec *spec, int at, int64_t batch) {
  const char *name = spec->size_names[at];
  if (name == NULL) return spec->shape[at];
  if (strcmp(name, "batch") == 0) return batch;
  int64_t blocks = (bundle->context + LANES - 1) / LANES;
  return strcmp(name, "context_blocks") == 0 ? blocks : blocks * LANES;
}

Array *state_new(const Bundle *bundle, int64_t batch) {
  Array *state = allocate(bundle->state_count, sizeof *state);
  for (size_t i = 0; i < bundle->state_count; i++) {
    const Spec *spec = &bundle->state[i];
    Array *array = &state[i];
    array->type = spec->type;
    array->dimensions = spec->dimensions;
    for (int at = 0; at < spec->dimensions; at++) array->shape[at] = size_of(bundle, spec, at, batch);
    array->bytes = array_bytes(array->type, array->dimensions, array->shape, spec->name);
    void *data = mmap(NULL, array->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) fail(EXIT_FAULT, "out of memory (a cache of %zu bytes)", array->bytes);
    array->data = data;
  }
  return state;
}

void state_release(const Bundle *bundle, Array *state) {
  for (size_t i = 0; i < bundle->state_count; i++) munmap((void *)(uintptr_t)state[i].data, state[i].bytes);
  free(state);
}
