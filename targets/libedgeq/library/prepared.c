#include "prepared.h"

#include <string.h>

#include "arena.h"

KernelTensor kernel_tensor(int32_t type, int32_t rank, int64_t *shape, void *data) {
  bool is_float = type == EDGEQ_FLOAT32 || type == EDGEQ_FLOAT16;
  bool is_unsigned = type == EDGEQ_UINT16 || type == EDGEQ_UINT8;
  return (KernelTensor){.data = data,
                        .device = ON_CPU,
                        .rank = rank,
                        .code = is_float ? FLOATING : is_unsigned ? UNSIGNED : type == EDGEQ_BOOL ? BOOLEAN : SIGNED,
                        .bits = (uint8_t)(8 * element_bytes(type)),
                        .lanes = 1,
                        .shape = shape};
}

/* ---- sizes ---- */

static int64_t dimension_size(const Plan *plan, const char *name, const int64_t *sizes) {
  for (size_t i = 0; i < plan->dimension_count; i++) {
    if (strcmp(plan->dimensions[i], name) == 0) return sizes[i];
  }
  return -1; /* a size that no kernel asks for */
}

static edgeq_tensor shape_of_spec(const Memory *memory, const Plan *plan, const Spec *spec, const int64_t *sizes) {
  edgeq_tensor tensor = {.type = spec->type, .rank = spec->rank};
  for (int at = 0; at < spec->rank; at++) {
    tensor.shape[at] = spec->dimensions[at] == NULL ? spec->shape[at] : dimension_size(plan, spec->dimensions[at], sizes);
  }
  tensor.bytes = tensor_bytes(memory, &tensor, spec->name, EDGEQ_USAGE);
  return tensor;
}

static edgeq_tensor shape_of_tensor(const Memory *memory, const Plan *plan, size_t index, const int64_t *sizes) {
  const PlanTensor *planned = &plan->tensors[index];
  edgeq_tensor tensor = {.type = planned->type, .rank = planned->rank};
  for (int at = 0; at < planned->rank; at++) tensor.shape[at] = evaluate(memory, plan, planned->shape[at], sizes);
  tensor.bytes = tensor_bytes(memory, &tensor, "a tensor of the plan", EDGEQ_DAMAGED);
  return tensor;
}

/* Inputs are needed from the start: they are put there before the first step. */
static size_t place_all(Memory *memory, const Plan *plan, const Interface *interface, const int64_t *sizes,
                        size_t *offsets) {
  size_t count = interface->input_count + plan->tensor_count;
  Place *places = allocate(memory, count, sizeof *places);
  for (size_t i = 0; i < interface->input_count; i++) {
    places[i] = (Place){shape_of_spec(memory, plan, &interface->inputs[i], sizes).bytes, 0, UINT32_MAX, 0};
  }
  for (size_t i = 0; i < plan->tensor_count; i++) {
    const PlanTensor *tensor = &plan->tensors[i];
    size_t bytes = shape_of_tensor(memory, plan, i, sizes).bytes;
    bool needs_place = !tensor->is_view && tensor->first != UINT32_MAX;
    places[interface->input_count + i] = (Place){needs_place ? bytes : 0, tensor->first, tensor->last, 0};
  }
  size_t whole = place_tensors(memory, places, count);
  for (size_t i = 0; i < count && offsets != NULL; i++) offsets[i] = places[i].offset;
  release(memory, places);
  return whole;
}

/* What one thread needs while it runs a part of any step. */
static size_t workspace_of(const Memory *memory, const Plan *plan, const int64_t *sizes) {
  int64_t most = 0;
  for (size_t i = 0; i < plan->step_count; i++) {
    if (!plan->steps[i].has_workspace) continue;
    int64_t bytes = evaluate(memory, plan, plan->steps[i].workspace, sizes);
    if (bytes < 0 || bytes > LARGEST_BYTES) fail(memory, EDGEQ_DAMAGED, "a kernel wants %lld bytes", (long long)bytes);
    most = bytes > most ? bytes : most;
  }
  return ((size_t)most + EDGEQ_ALIGNMENT - 1) / EDGEQ_ALIGNMENT * EDGEQ_ALIGNMENT;
}

ArenaSize arena_size(Memory *memory, const Plan *plan, const Interface *interface, const int64_t *sizes) {
  return (ArenaSize){place_all(memory, plan, interface, sizes, NULL), workspace_of(memory, plan, sizes)};
}

/* ---- tensors and arguments ---- */

static KernelTensor *tensor_of(const Prepared *prepared, Argument argument) {
  const Interface *interface = prepared->interface;
  if (argument.origin == OF_WEIGHT) return &prepared->weights[argument.index];
  if (argument.origin == OF_INPUT) return &prepared->tensors[argument.index];
  if (argument.origin == OF_STATE) return &prepared->tensors[interface->input_count + argument.index];
  return &prepared->tensors[interface->input_count + interface->state_count + argument.index];
}

static size_t bytes_of(const KernelTensor *tensor) {
  size_t bytes = tensor->bits / 8u;
  for (int at = 0; at < tensor->rank; at++) bytes *= (size_t)tensor->shape[at];
  return bytes;
}

static void describe(Prepared *prepared, size_t at, const edgeq_tensor *tensor) {
  int64_t *shape = allocate(&prepared->memory, (size_t)tensor->rank, sizeof *shape);
  memcpy(shape, tensor->shape, (size_t)tensor->rank * sizeof *shape);
  prepared->tensors[at] = kernel_tensor(tensor->type, tensor->rank, shape, NULL);
}

static void describe_all(Prepared *prepared) {
  const Interface *interface = prepared->interface;
  const Plan *plan = prepared->plan;
  Memory *memory = &prepared->memory;
  size_t at = 0;
  for (size_t i = 0; i < interface->input_count; i++) {
    edgeq_tensor tensor = shape_of_spec(memory, plan, &interface->inputs[i], prepared->sizes);
    describe(prepared, at++, &tensor);
  }
  for (size_t i = 0; i < interface->state_count; i++) {
    edgeq_tensor tensor = shape_of_spec(memory, plan, &interface->state[i], prepared->sizes);
    describe(prepared, at++, &tensor);
  }
  for (size_t i = 0; i < plan->tensor_count; i++) {
    edgeq_tensor tensor = shape_of_tensor(memory, plan, i, prepared->sizes);
    describe(prepared, at++, &tensor);
    if (!plan->tensors[i].is_view) continue;
    const KernelTensor *base = tensor_of(prepared, plan->tensors[i].base);
    /* Only a tensor of the same size may have the same memory. */
    if (bytes_of(base) != tensor.bytes) fail(memory, EDGEQ_DAMAGED, "the plan reshapes a tensor to another size");
  }
}

static void write_values(Prepared *prepared) {
  const Plan *plan = prepared->plan;
  const PlanStep *last = plan->step_count > 0 ? &plan->steps[plan->step_count - 1] : NULL;
  size_t count = last != NULL ? last->first_argument + last->argument_count : 0;
  prepared->values = allocate(&prepared->memory, count, sizeof *prepared->values);
  for (size_t i = 0; i < count; i++) {
    Argument argument = plan->arguments[i];
    KernelValue *value = &prepared->values[i];
    if (argument.origin == OF_INTEGER) {
      value->kind = KERNEL_INTEGER;
      value->integer = evaluate(&prepared->memory, plan, plan->integers[argument.index], prepared->sizes);
    } else {
      value->kind = KERNEL_TENSOR;
      value->pointer = tensor_of(prepared, argument);
    }
  }
}

static void describe_outputs(Prepared *prepared) {
  const Interface *interface = prepared->interface;
  prepared->outputs = allocate(&prepared->memory, interface->output_count, sizeof *prepared->outputs);
  for (size_t i = 0; i < interface->output_count; i++) {
    const Spec *spec = &interface->outputs[i];
    const KernelTensor *tensor = tensor_of(prepared, prepared->plan->outputs[i]);
    KernelTensor wanted = kernel_tensor(spec->type, spec->rank, NULL, NULL);
    edgeq_tensor *output = &prepared->outputs[i];
    bool fits = tensor->rank == spec->rank && tensor->code == wanted.code && tensor->bits == wanted.bits;
    *output = (edgeq_tensor){.type = spec->type, .rank = spec->rank, .bytes = bytes_of(tensor)};
    for (int at = 0; fits && at < spec->rank; at++) {
      output->shape[at] = tensor->shape[at];
      fits = spec->shape[at] < 0 || spec->shape[at] == tensor->shape[at];
    }
    if (!fits) {
      fail(&prepared->memory, EDGEQ_DAMAGED,
           "output '%s' has not the type and shape that the manifest says; compile the bundle again", spec->name);
    }
  }
}

static void release_prepared(void *prepared) { release_all(&((Prepared *)prepared)->memory); }

Prepared *prepare(Memory *memory, const Plan *plan, const Interface *interface, KernelTensor *weights,
                  const int64_t *sizes) {
  Prepared *prepared = allocate_with(memory, sizeof *prepared, release_prepared);
  size_t count = interface->input_count + interface->state_count + plan->tensor_count;
  prepared->memory = (Memory){.allocator = memory->allocator, .failure = memory->failure};
  prepared->plan = plan;
  prepared->interface = interface;
  prepared->weights = weights;
  memcpy(prepared->sizes, sizes, plan->dimension_count * sizeof *sizes);
  prepared->offsets = allocate(&prepared->memory, count, sizeof *prepared->offsets);
  prepared->size.tensors = place_all(&prepared->memory, plan, interface, sizes, prepared->offsets);
  prepared->size.workspace = workspace_of(&prepared->memory, plan, sizes);
  prepared->tensors = allocate(&prepared->memory, count, sizeof *prepared->tensors);
  describe_all(prepared);
  write_values(prepared);
  describe_outputs(prepared);
  return prepared;
}

void *input_place(const Prepared *prepared, size_t input) { return prepared->tensors[input].data; }

void bind(Prepared *prepared, char *arena, const edgeq_tensor *state) {
  const Interface *interface = prepared->interface;
  const Plan *plan = prepared->plan;
  KernelTensor *tensors = prepared->tensors, *planned = tensors + interface->input_count + interface->state_count;
  for (size_t i = 0; i < interface->input_count; i++) tensors[i].data = arena + prepared->offsets[i];
  for (size_t i = 0; i < interface->state_count; i++) tensors[interface->input_count + i].data = state[i].data;
  for (size_t i = 0; i < plan->tensor_count; i++) {
    const PlanTensor *tensor = &plan->tensors[i]; /* views come after their bases */
    planned[i].data = tensor->is_view ? tensor_of(prepared, tensor->base)->data
                                      : arena + prepared->offsets[interface->input_count + i];
  }
  for (size_t i = 0; i < interface->output_count; i++) {
    prepared->outputs[i].data = tensor_of(prepared, plan->outputs[i])->data;
  }
}
