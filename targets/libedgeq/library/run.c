/* Running a function: its plan is prepared once for a set of sizes, then its kernels are called one after the other. */
#include <string.h>

#include "inputs.h"
#include "platform.h"
#include "session.h"

void check_cancelled(const edgeq_session *session) {
  if (atomic_load_explicit(&session->cancelled, memory_order_relaxed)) {
    fail(&session->call, EDGEQ_CANCELLED, "the call was cancelled");
  }
}

void reset_state(edgeq_session *session, int64_t batch) {
  if (batch < 1 || batch > LARGEST_SIZE) {
    fail(&session->call, EDGEQ_USAGE, "a batch of %lld sequences is not possible", (long long)batch);
  }
  if (session->state == NULL || session->state->capacity < batch) {
    session->state = NULL;
    release_all(&session->cache);
    session->state = state_new(&session->cache, session->model, batch);
  }
  state_use_rows(session->state, 0, batch);
}

/* ---- prepared plans ---- */

/* The plan for these sizes: one that is kept, or a new one in the place of that which was not used for longest. */
static Prepared *prepared_for(edgeq_session *session, const Function *function, const int64_t *sizes) {
  size_t bytes = function->plan->dimension_count * sizeof *sizes, oldest = 0;
  for (size_t i = 0; i < KEPT_SHAPES; i++) {
    Prepared *kept = session->prepared[i];
    bool fits = kept != NULL && kept->plan == function->plan && memcmp(kept->sizes, sizes, bytes) == 0;
    if (fits) return kept;
    const Prepared *other = session->prepared[oldest];
    if (other != NULL && (kept == NULL || kept->newest_use < other->newest_use)) oldest = i;
  }
  release(&session->memory, session->prepared[oldest]);
  session->prepared[oldest] = NULL;
  session->prepared[oldest] = prepare(&session->memory, function->plan, &function->interface,
                                      session->model->weight_tensors, sizes);
  return session->prepared[oldest];
}

static size_t whole_bytes(const edgeq_session *session, ArenaSize size) {
  size_t places = pool_places(session->pool);
  if (size.workspace > 0 && places > (SIZE_MAX / 2 - size.tensors) / size.workspace) {
    fail(&session->call, EDGEQ_NO_MEMORY, "the tensors of this call do not fit memory");
  }
  return size.tensors + places * size.workspace;
}

static void use_arena(edgeq_session *session, ArenaSize size) {
  size_t bytes = whole_bytes(session, size);
  if (bytes > session->arena_bytes) {
    if (session->arena_is_given) {
      fail(&session->call, EDGEQ_USAGE, "the call needs %zu bytes of memory, %zu were given with edgeq_give_arena", bytes,
           session->arena_bytes);
    }
    release(&session->memory, session->arena);
    session->arena = NULL;
    session->arena_bytes = 0;
    session->arena = allocate_data(&session->memory, bytes);
    session->arena_bytes = bytes;
  }
  pool_use_workspace(session->pool, session->arena + size.tensors, size.workspace);
}

/* ---- kernels ---- */

static void report(edgeq_session *session, const Function *function, size_t step, const KernelValue *values,
                   double seconds) {
  const PlanStep *planned = &function->plan->steps[step];
  const Mapping *weights = &session->model->weights_file.data;
  edgeq_kernel_time time = {.name = function->plan->kernels[planned->kernel], .step = step, .seconds = seconds};
  for (uint32_t i = 0; i < planned->argument_count; i++) {
    if (values[i].kind != KERNEL_TENSOR) continue;
    const KernelTensor *tensor = values[i].pointer;
    uint64_t bytes = tensor->bits / 8u;
    for (int at = 0; at < tensor->rank; at++) bytes *= (uint64_t)tensor->shape[at];
    time.bytes += bytes;
    uintptr_t place = (uintptr_t)tensor->data, start = (uintptr_t)weights->data;
    if (place >= start && place < start + weights->size) time.weight_bytes += bytes;
  }
  session->watch(session->watch_context, &time);
}

/* ---- digests ---- */

static size_t elements_of(const KernelTensor *tensor) {
  size_t count = 1;
  for (int at = 0; at < tensor->rank; at++) count *= (size_t)tensor->shape[at];
  return count;
}

/* A kernel takes row 0 for an id that the table does not have. */
static void check_rows(edgeq_session *session, const KernelTensor *ids, const KernelTensor *table, int64_t tile) {
  const CheckedFile *file = &session->model->weights_file;
  size_t count = elements_of(ids), bytes = elements_of(table) * (table->bits / 8u) / (size_t)table->shape[0];
  for (size_t i = 0; i < count; i++) {
    int64_t id = ((const int64_t *)ids->data)[i], entry = id < 0 || id / tile >= table->shape[0] ? 0 : id / tile;
    check_bytes(&session->call, file, (const char *)table->data + (size_t)entry * bytes, bytes);
  }
}

/* What a step reads of the weights is compared before it does so: a result never comes from bytes that were not. */
static void check_step(edgeq_session *session, const Function *function, const Prepared *prepared, size_t step) {
  const PlanStep *planned = &function->plan->steps[step];
  const KernelValue *values = prepared->values + planned->first_argument;
  const Argument *arguments = function->plan->arguments + planned->first_argument;
  if (atomic_load_explicit(&function->is_checked[step], memory_order_relaxed)) return;
  bool by_rows = false;
  for (uint32_t i = 0; i < planned->argument_count; i++) {
    if (root_of(function->plan, arguments[i]).origin != OF_WEIGHT) continue;
    const KernelTensor *weight = values[i].pointer;
    if (planned->reads_rows && i == planned->table) {
      const KernelTensor *ids = values[planned->ids].pointer;
      by_rows = weight->rank > 0 && ids->code == SIGNED && ids->bits == 64;
      if (by_rows) check_rows(session, ids, weight, planned->tile);
      if (by_rows) continue;
    }
    check_bytes_together(&session->call, &session->model->weights_file, weight->data,
                         elements_of(weight) * (weight->bits / 8u));
  }
  if (!by_rows) atomic_store_explicit(&function->is_checked[step], true, memory_order_relaxed);
}

/* An output may be a weight itself. */
static void check_outputs(const edgeq_session *session, const Function *function, const Prepared *prepared) {
  for (size_t i = 0; i < function->interface.output_count; i++) {
    if (root_of(function->plan, function->plan->outputs[i]).origin != OF_WEIGHT) continue;
    check_bytes(&session->call, &session->model->weights_file, prepared->outputs[i].data, prepared->outputs[i].bytes);
  }
}

static void run_step(edgeq_session *session, const Function *function, Prepared *prepared, size_t step) {
  const PlanStep *planned = &function->plan->steps[step];
  const KernelValue *values = prepared->values + planned->first_argument;
  KernelValue result = {0};
  double start = session->watch != NULL ? now() : 0;
  int failed = function->kernels[planned->kernel](NULL, values, (int32_t)planned->argument_count, &result);
  if (failed != 0) {
    fail(&session->call, EDGEQ_FAILED, "kernel '%s' (step %zu) failed: %s; compile the bundle again",
         function->plan->kernels[planned->kernel], step, pool_error(session->pool));
  }
  if (session->watch != NULL) report(session, function, step, values, now() - start);
}

/* ---- functions ---- */

/* Sizes of the inputs and of the caches, which are reset if they are for another batch. */
static void bind_all(edgeq_session *session, const Function *function, const edgeq_tensor *inputs,
                     edgeq_tensor *complete, int64_t *sizes, const char *where) {
  const edgeq_tensor *caches = NULL;
  if (function->interface.state_count > 0) {
    bind_inputs(&session->call, function, inputs, NULL, complete, sizes, where);
    int64_t batch = complete[0].shape[0];
    if (session->state == NULL || session->state->rows != batch) reset_state(session, batch);
    caches = session->state->tensors;
  }
  bind_inputs(&session->call, function, inputs, caches, complete, sizes, where);
}

static const Function *function_of(const edgeq_session *session, int32_t number) {
  if (number < 0 || number >= EDGEQ_FUNCTIONS || session->model->functions[number].plan == NULL) {
    fail(&session->call, EDGEQ_USAGE, "the model has no function %d", (int)number);
  }
  return &session->model->functions[number];
}

uint64_t needed_bytes(edgeq_session *session, int32_t number, const edgeq_tensor *inputs) {
  const Function *function = function_of(session, number);
  int64_t sizes[MAX_DIMENSIONS];
  bind_all(session, function, inputs, session->inputs, sizes, "");
  return whole_bytes(session, arena_size(&session->call, function->plan, &function->interface, sizes));
}

static void put_inputs(const edgeq_session *session, const Function *function, const Prepared *prepared,
                       edgeq_tensor *inputs, const char *where) {
  for (size_t i = 0; i < function->interface.input_count; i++) {
    const Spec *spec = &function->interface.inputs[i];
    const void *given = inputs[i].data;
    inputs[i].data = input_place(prepared, i);
    if (given != NULL) {
      memcpy(inputs[i].data, given, inputs[i].bytes);
    } else if (spec->has_default) {
      fill_input(&inputs[i], spec->default_value);
    } else {
      fail(&session->call, EDGEQ_USAGE, "%sinput '%s' is missing, and has no default", where, spec->name);
    }
  }
  check_values(&session->call, session->model, function, inputs, where);
}

void run_function(edgeq_session *session, int32_t number, const edgeq_tensor *inputs, edgeq_tensor *outputs,
                  const char *where) {
  const Function *function = function_of(session, number);
  const Interface *interface = &function->interface;
  edgeq_tensor *complete = session->inputs, *caches = session->caches;
  int64_t sizes[MAX_DIMENSIONS];
  bind_all(session, function, inputs, complete, sizes, where);
  Prepared *prepared = prepared_for(session, function, sizes);
  prepared->newest_use = ++session->uses;
  use_arena(session, prepared->size);
  for (size_t i = 0; i < interface->state_count; i++) {
    caches[i] = session->state->tensors[function->state_at[i]];
  }
  bind(prepared, session->arena, caches);
  put_inputs(session, function, prepared, complete, where);
  for (size_t step = 0; step < function->plan->step_count; step++) {
    check_cancelled(session);
    check_step(session, function, prepared, step);
    run_step(session, function, prepared, step);
  }
  check_outputs(session, function, prepared);
  if (interface->output_count > 0) memcpy(outputs, prepared->outputs, interface->output_count * sizeof *outputs);
}
