#include "inputs.h"

#include <string.h>

static int64_t element(const edgeq_tensor *tensor, size_t at) {
  switch (tensor->type) {
    case EDGEQ_INT64: return ((const int64_t *)tensor->data)[at];
    case EDGEQ_INT32: return ((const int32_t *)tensor->data)[at];
    case EDGEQ_INT16: return ((const int16_t *)tensor->data)[at];
    case EDGEQ_UINT16: return ((const uint16_t *)tensor->data)[at];
    case EDGEQ_INT8: return ((const int8_t *)tensor->data)[at];
    default: return ((const uint8_t *)tensor->data)[at];
  }
}

static bool is_integer(int32_t type) { return type >= EDGEQ_INT64 && type <= EDGEQ_BOOL; }

void fill_input(const edgeq_tensor *input, int64_t value) {
  size_t count = input->bytes / element_bytes(input->type);
  for (size_t i = 0; i < count; i++) {
    switch (input->type) {
      case EDGEQ_FLOAT32: ((float *)input->data)[i] = (float)value; break;
      case EDGEQ_INT64: ((int64_t *)input->data)[i] = value; break;
      case EDGEQ_INT32: ((int32_t *)input->data)[i] = (int32_t)value; break;
      case EDGEQ_INT16:
      case EDGEQ_UINT16:
      case EDGEQ_FLOAT16: ((uint16_t *)input->data)[i] = (uint16_t)value; break;
      default: ((uint8_t *)input->data)[i] = (uint8_t)value;
    }
  }
}

/* ---- sizes ---- */

/* What is known of the sizes while inputs are looked at; -1 is not known yet. */
typedef struct {
  const Memory *memory;
  const Plan *plan;
  int64_t *sizes;
  const char *where;
} Sizes;

static int64_t *size_named(const Sizes *known, const char *name) {
  for (size_t i = 0; i < known->plan->dimension_count; i++) {
    if (strcmp(known->plan->dimensions[i], name) == 0) return &known->sizes[i];
  }
  return NULL; /* not possible: a plan knows the names of all inputs and caches */
}

static void bind_size(const Sizes *known, const Spec *spec, const edgeq_tensor *tensor, int at) {
  int64_t found = tensor->shape[at], *size = spec->dimensions[at] != NULL ? size_named(known, spec->dimensions[at]) : NULL;
  int64_t expected = size != NULL ? *size : spec->shape[at];
  if (found < 1 || found > LARGEST_SIZE) {
    fail(known->memory, EDGEQ_USAGE, "%sinput '%s' has size %lld, which is not possible", known->where, spec->name,
         (long long)found);
  }
  if (expected < 0 && size != NULL) {
    *size = found;
  } else if (expected != found) {
    fail(known->memory, EDGEQ_USAGE, "%sinput '%s' has size %lld where %lld is expected", known->where, spec->name,
         (long long)found, (long long)expected);
  }
}

static void bind_tensor(const Sizes *known, const Spec *spec, const edgeq_tensor *tensor) {
  if (tensor->type != spec->type) {
    bool is_known = tensor->type >= EDGEQ_FLOAT32 && tensor->type <= EDGEQ_BOOL;
    fail(known->memory, EDGEQ_USAGE, "%sinput '%s' must be %s, found %s", known->where, spec->name,
         element_name(spec->type), is_known ? element_name(tensor->type) : "an unknown type");
  }
  if (tensor->rank != spec->rank) {
    fail(known->memory, EDGEQ_USAGE, "%sinput '%s' must have %d dimensions, found %d", known->where, spec->name,
         (int)spec->rank, (int)tensor->rank);
  }
  for (int at = 0; at < spec->rank; at++) bind_size(known, spec, tensor, at);
}

/* The shape of an input that was left out follows from the others. */
static edgeq_tensor shaped(const Sizes *known, const Spec *spec) {
  edgeq_tensor tensor = {.type = spec->type, .rank = spec->rank};
  for (int at = 0; at < spec->rank; at++) {
    int64_t size = spec->dimensions[at] != NULL ? *size_named(known, spec->dimensions[at]) : spec->shape[at];
    if (size < 0) {
      fail(known->memory, EDGEQ_USAGE, "%sinput '%s' cannot be filled in: no other input tells its size '%s'",
           known->where, spec->name, spec->dimensions[at]);
    }
    tensor.shape[at] = size;
  }
  return tensor;
}

static void check_longest(const Sizes *known, const Function *function) {
  const int64_t *sequence = size_named(known, "sequence");
  if (sequence == NULL || function->longest == 0 || *sequence <= function->longest) return;
  fail(known->memory, EDGEQ_USAGE, "%sthe text has %lld tokens, the model takes at most %lld; shorten or split it",
       known->where, (long long)*sequence, (long long)function->longest);
}

void bind_inputs(Memory *memory, const Function *function, const edgeq_tensor *inputs, const edgeq_tensor *state,
                 edgeq_tensor *complete, int64_t *sizes, const char *where) {
  const Interface *interface = &function->interface;
  Sizes known = {memory, function->plan, sizes, where};
  for (size_t i = 0; i < function->plan->dimension_count; i++) sizes[i] = -1;
  for (size_t i = 0; i < interface->input_count; i++) {
    const Spec *spec = &interface->inputs[i];
    bool is_left_out = inputs[i].data == NULL && inputs[i].rank == 0 && spec->rank > 0;
    if (!is_left_out) bind_tensor(&known, spec, &inputs[i]);
  }
  for (size_t i = 0; i < interface->state_count && state != NULL; i++) {
    const edgeq_tensor *cache = &state[function->state_at[i]];
    for (int at = 0; at < cache->rank; at++) bind_size(&known, &interface->state[i], cache, at);
  }
  for (size_t i = 0; i < interface->input_count; i++) {
    const Spec *spec = &interface->inputs[i];
    complete[i] = shaped(&known, spec);
    complete[i].bytes = tensor_bytes(memory, &complete[i], spec->name, EDGEQ_USAGE);
    complete[i].data = inputs[i].data;
  }
  check_longest(&known, function);
}

/* ---- values ---- */

static void check_range(const Memory *memory, const Spec *spec, const edgeq_tensor *tensor, const char *where) {
  if (!is_integer(tensor->type) || (!spec->has_minimum && !spec->has_maximum)) return;
  size_t count = tensor->bytes / element_bytes(tensor->type);
  for (size_t i = 0; i < count; i++) {
    int64_t value = element(tensor, i);
    if ((spec->has_minimum && value < spec->minimum) || (spec->has_maximum && value > spec->maximum)) {
      fail(memory, EDGEQ_USAGE, "%sinput '%s' holds %lld; values lie in %lld..%lld", where, spec->name, (long long)value,
           (long long)(spec->has_minimum ? spec->minimum : INT64_MIN),
           (long long)(spec->has_maximum ? spec->maximum : INT64_MAX));
    }
  }
}

/* A decoder's sequences must fit their rows and the caches. */
static void check_lengths(const Memory *memory, int64_t context, const edgeq_tensor *inputs, const char *where) {
  const int64_t *past = inputs[1].data, *added = inputs[2].data;
  for (int64_t row = 0; row < inputs[0].shape[0]; row++) {
    if (added[row] < 0 || added[row] > inputs[0].shape[1]) {
      fail(memory, EDGEQ_USAGE, "%s'new_lengths' holds %lld, but a row of 'input_ids' has %lld tokens", where,
           (long long)added[row], (long long)inputs[0].shape[1]);
    }
    if (past[row] < 0 || past[row] > context - added[row]) {
      fail(memory, EDGEQ_USAGE, "%s%lld tokens after %lld do not fit the bundle's context of %lld", where,
           (long long)added[row], (long long)past[row], (long long)context);
    }
  }
}

/* No encoder input may be longer than its row; the mask must say the same. */
static void check_source_lengths(const Memory *memory, const edgeq_tensor *inputs, const char *where) {
  const int64_t *mask = inputs[1].data, *lengths = inputs[2].data, width = inputs[0].shape[1];
  for (int64_t row = 0; row < inputs[0].shape[0]; row++) {
    if (lengths[row] > width) {
      fail(memory, EDGEQ_USAGE, "%s'source_lengths' holds %lld, but a row of ids has %lld tokens", where,
           (long long)lengths[row], (long long)width);
    }
    for (int64_t at = 0; at < width; at++) {
      if ((mask[row * width + at] != 0) != (at < lengths[row])) {
        fail(memory, EDGEQ_USAGE, "%s'attention_mask' must be 1 for the tokens that 'source_lengths' counts and else 0",
             where);
      }
    }
  }
}

void check_values(const Memory *memory, const edgeq_model *model, const Function *function, const edgeq_tensor *inputs,
                  const char *where) {
  for (size_t i = 0; i < function->interface.input_count; i++) {
    check_range(memory, &function->interface.inputs[i], &inputs[i], where);
  }
  if (function == &model->functions[EDGEQ_ENCODE]) {
    check_source_lengths(memory, inputs, where);
  } else if (model->generation.context > 0) {
    check_lengths(memory, model->generation.context, inputs, where);
  }
}
