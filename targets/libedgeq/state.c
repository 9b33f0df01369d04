#include "state.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fail.h"

static int64_t whole_vectors(int64_t tokens) { return (tokens + LANES - 1) / LANES; }

static bool in_vectors(const Spec *spec) { return strstr(spec->size_names[2], "_blocks") != NULL; }

static int64_t size_of(const Generation *generation, size_t cache, int at, int64_t batch) {
  const Spec *spec = &generation->state[cache];
  if (spec->size_names[at] == NULL) return spec->shape[at];
  if (at == 0) return batch;
  int64_t blocks = whole_vectors(generation->of_source[cache] ? generation->source_context : generation->context);
  return in_vectors(spec) ? blocks : blocks * LANES;
}

State state_new(const Bundle *bundle, int64_t batch) {
  const Generation *generation = &bundle->generation;
  State state = {generation, allocate(generation->state_count, sizeof *state.arrays),
                 allocate(generation->state_count, sizeof *state.capacity)};
  for (size_t i = 0; i < generation->state_count; i++) {
    const Spec *spec = &generation->state[i];
    Array *array = &state.arrays[i];
    array->type = spec->type;
    array->dimensions = spec->dimensions;
    for (int at = 0; at < spec->dimensions; at++) array->shape[at] = size_of(generation, i, at, batch);
    array->bytes = array_bytes(array->type, array->dimensions, array->shape, spec->name);
    state.capacity[i] = array->bytes;
    void *data = mmap(NULL, array->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) fail(EXIT_FAULT, "out of memory (a cache of %zu bytes)", array->bytes);
    array->data = data;
  }
  return state;
}

void state_use_rows(State *state, int64_t batch) {
  for (size_t i = 0; i < state->generation->state_count; i++) {
    Array *array = &state->arrays[i];
    array->shape[0] = batch;
    array->bytes = array_bytes(array->type, array->dimensions, array->shape, state->generation->state[i].name);
  }
}

/* Copies the first `tokens` tokens of every head from one row of a cache to another: `to` and `from` are rows of the
 * cache or buffers as large. */
static void copy_row(const State *state, size_t cache, char *to, const char *from, int64_t tokens) {
  const Array *array = &state->arrays[cache];
  size_t slot = array->type->bits / 8u;
  for (int at = 3; at < array->dimensions; at++) slot *= (size_t)array->shape[at];
  size_t head = slot * (size_t)array->shape[2];
  size_t used = slot * (size_t)(in_vectors(&state->generation->state[cache]) ? whole_vectors(tokens) : tokens);
  for (int64_t i = 0; i < array->shape[1]; i++) memcpy(to + (size_t)i * head, from + (size_t)i * head, used);
}

static size_t row_bytes(const Array *array) { return array->bytes / (size_t)array->shape[0]; }

static char *row_of(const Array *array, size_t row) { return (char *)(uintptr_t)array->data + row * row_bytes(array); }

void state_keep(State *state, const size_t *rows, size_t count, const int64_t *lengths, const int64_t *source_lengths) {
  for (size_t i = 0; i < state->generation->state_count; i++) {
    const int64_t *of_rows = state->generation->of_source[i] ? source_lengths : lengths;
    for (size_t to = 0; to < count; to++) {
      const Array *array = &state->arrays[i];
      if (rows[to] != to) copy_row(state, i, row_of(array, to), row_of(array, rows[to]), of_rows[to]);
    }
  }
  state_use_rows(state, (int64_t)count);
}

void state_repeat_source(State *state, int64_t batch, int64_t length) {
  state_use_rows(state, batch);
  for (size_t i = 0; i < state->generation->state_count; i++) {
    const Array *array = &state->arrays[i];
    for (size_t to = 1; to < (size_t)batch && state->generation->of_source[i]; to++) {
      copy_row(state, i, row_of(array, to), row_of(array, 0), length);
    }
  }
}

void state_reorder(State *state, const size_t *rows, int64_t length) {
  size_t largest = 0;
  for (size_t i = 0; i < state->generation->state_count; i++) {
    if (state->arrays[i].bytes > largest) largest = state->arrays[i].bytes;
  }
  char *before = allocate(largest, 1); /* rows may change places */
  for (size_t i = 0; i < state->generation->state_count; i++) {
    const Array *array = &state->arrays[i];
    size_t count = (size_t)array->shape[0], bytes = row_bytes(array);
    if (state->generation->of_source[i]) continue;
    for (size_t to = 0; to < count; to++) {
      if (rows[to] != to) copy_row(state, i, before + to * bytes, row_of(array, rows[to]), length);
    }
    for (size_t to = 0; to < count; to++) {
      if (rows[to] != to) copy_row(state, i, row_of(array, to), before + to * bytes, length);
    }
  }
  free(before);
}

void state_release(State *state) {
  for (size_t i = 0; i < state->generation->state_count; i++) {
    munmap((void *)(uintptr_t)state->arrays[i].data, state->capacity[i]);
  }
  free(state->arrays);
  free(state->capacity);
}
