#include "state.h"

#include <string.h>

static int64_t whole_vectors(int64_t tokens) { return (tokens + LANES - 1) / LANES; }

static const Interface *interface_of(const State *state) { return &state->model->functions[EDGEQ_MAIN].interface; }

static bool in_vectors(const Spec *spec) { return strstr(spec->dimensions[2], "_blocks") != NULL; }

static int64_t size_of(const edgeq_model *model, size_t cache, int at, int64_t batch) {
  const Spec *spec = &model->functions[EDGEQ_MAIN].interface.state[cache];
  const Generation *generation = &model->generation;
  if (spec->dimensions[at] == NULL) return spec->shape[at];
  if (at == 0) return batch;
  int64_t blocks = whole_vectors(generation->of_source[cache] ? generation->source_context : generation->context);
  return in_vectors(spec) ? blocks : blocks * LANES;
}

static size_t row_bytes(const State *state, size_t cache) {
  const edgeq_tensor *tensor = &state->tensors[cache];
  return tensor->bytes / (size_t)tensor->shape[0];
}

static char *row_of(const State *state, size_t cache, size_t row) {
  return state->whole[cache] + row * row_bytes(state, cache);
}

edgeq_tensor state_tensor(const Memory *memory, const edgeq_model *model, size_t cache, int64_t batch,
                          edgeq_status status) {
  const Spec *spec = &model->functions[EDGEQ_MAIN].interface.state[cache];
  edgeq_tensor tensor = {.type = spec->type, .rank = spec->rank};
  for (int at = 0; at < spec->rank; at++) tensor.shape[at] = size_of(model, cache, at, batch);
  tensor.bytes = tensor_bytes(memory, &tensor, spec->name, status);
  return tensor;
}

State *state_new(Memory *memory, const edgeq_model *model, int64_t batch) {
  const Interface *main = &model->functions[EDGEQ_MAIN].interface;
  State *state = allocate(memory, 1, sizeof *state);
  *state = (State){.model = model, .rows = batch, .capacity = batch};
  state->tensors = allocate(memory, main->state_count, sizeof *state->tensors);
  state->whole = allocate(memory, main->state_count, sizeof *state->whole);
  for (size_t i = 0; i < main->state_count; i++) {
    state->tensors[i] = state_tensor(memory, model, i, batch, EDGEQ_USAGE);
    state->tensors[i].data = state->whole[i] = allocate_data(memory, state->tensors[i].bytes);
  }
  return state;
}

void state_use_rows(State *state, int64_t first, int64_t batch) {
  for (size_t i = 0; i < interface_of(state)->state_count; i++) {
    size_t bytes = row_bytes(state, i);
    state->tensors[i].data = row_of(state, i, (size_t)first);
    state->tensors[i].shape[0] = batch;
    state->tensors[i].bytes = bytes * (size_t)batch;
  }
  state->rows = batch;
}

/* Copies the first `tokens` tokens of every head from one row of a cache to another: `to` and `from` are rows of the
 * cache or buffers as large. */
static void copy_row(const State *state, size_t cache, char *to, const char *from, int64_t tokens) {
  const edgeq_tensor *tensor = &state->tensors[cache];
  size_t slot = element_bytes(tensor->type);
  for (int at = 3; at < tensor->rank; at++) slot *= (size_t)tensor->shape[at];
  size_t head = slot * (size_t)tensor->shape[2];
  bool vectors = in_vectors(&interface_of(state)->state[cache]);
  size_t used = slot * (size_t)(vectors ? whole_vectors(tokens) : tokens);
  for (int64_t i = 0; i < tensor->shape[1]; i++) memcpy(to + (size_t)i * head, from + (size_t)i * head, used);
}

void state_keep(State *state, const size_t *rows, size_t count, const int64_t *lengths, const int64_t *source_lengths) {
  for (size_t i = 0; i < interface_of(state)->state_count; i++) {
    const int64_t *of_rows = state->model->generation.of_source[i] ? source_lengths : lengths;
    for (size_t to = 0; to < count; to++) {
      if (rows[to] != to) copy_row(state, i, row_of(state, i, to), row_of(state, i, rows[to]), of_rows[to]);
    }
  }
  state_use_rows(state, 0, (int64_t)count);
}

void state_repeat_source(State *state, int64_t batch, int64_t length) {
  state_use_rows(state, 0, batch);
  for (size_t i = 0; i < interface_of(state)->state_count; i++) {
    for (size_t to = 1; to < (size_t)batch && state->model->generation.of_source[i]; to++) {
      copy_row(state, i, row_of(state, i, to), row_of(state, i, 0), length);
    }
  }
}

void state_make_spare(Memory *memory, State *state) {
  size_t largest = 0;
  for (size_t i = 0; i < interface_of(state)->state_count; i++) {
    size_t bytes = row_bytes(state, i) * (size_t)state->capacity;
    if (bytes > largest && !state->model->generation.of_source[i]) largest = bytes;
  }
  if (state->spare == NULL) state->spare = allocate_data(memory, largest);
}

void state_reorder(State *state, const size_t *rows, int64_t length) {
  char *before = state->spare; /* rows may change places */
  for (size_t i = 0; i < interface_of(state)->state_count; i++) {
    size_t count = (size_t)state->rows, bytes = row_bytes(state, i);
    if (state->model->generation.of_source[i]) continue;
    for (size_t to = 0; to < count; to++) {
      if (rows[to] != to) copy_row(state, i, before + to * bytes, row_of(state, i, rows[to]), length);
    }
    for (size_t to = 0; to < count; to++) {
      if (rows[to] != to) copy_row(state, i, row_of(state, i, to), before + to * bytes, length);
    }
  }
}
