#include "inputs.h"

#include <stdlib.h>
#include <string.h>

#include <dlpack/dlpack.h>

#include "fail.h"

static int64_t element(const Array *array, size_t at) {
  bool is_unsigned = array->type->code == kDLUInt;
  switch (array->type->bits) {
    case 64: return ((const int64_t *)array->data)[at];
    case 32: return ((const int32_t *)array->data)[at];
    case 16: return is_unsigned ? ((const uint16_t *)array->data)[at] : ((const int16_t *)array->data)[at];
    default: return is_unsigned ? ((const uint8_t *)array->data)[at] : ((const int8_t *)array->data)[at];
  }
}

static void check_values(const Spec *spec, const Array *array, const char *where) {
  if (array->type->code == kDLFloat || (!spec->has_minimum && !spec->has_maximum)) return;
  size_t count = array->bytes / (array->type->bits / 8u);
  for (size_t i = 0; i < count; i++) {
    int64_t value = element(array, i);
    if ((spec->has_minimum && value < spec->minimum) || (spec->has_maximum && value > spec->maximum)) {
      fail(EXIT_USAGE, "%s: input '%s' holds %lld; values lie in %lld..%lld", where, spec->name, (long long)value,
           (long long)spec->minimum, (long long)spec->maximum);
    }
  }
}

/* Sizes by name, over all inputs of one call. */
typedef struct {
  const char *names[64];
  int64_t sizes[64];
  size_t count;
} Sizes;

static void check_size(Sizes *known, const Spec *spec, const Array *array, int at, const char *where) {
  const char *name = spec->size_names[at];
  int64_t expected = spec->shape[at];
  for (size_t i = 0; name != NULL && i < known->count; i++) {
    if (strcmp(known->names[i], name) == 0) expected = known->sizes[i];
  }
  if (expected < 0) {
    if (known->count == sizeof known->sizes / sizeof *known->sizes) fail(EXIT_FAULT, "too many named sizes");
    known->names[known->count] = name;
    known->sizes[known->count++] = array->shape[at];
  } else if (expected != array->shape[at]) {
    fail(EXIT_USAGE, "%s: input '%s' has size %lld where %lld is expected", where, spec->name,
         (long long)array->shape[at], (long long)expected);
  }
}

/* A decoder's sequences must fit their rows and the caches. */
static void check_lengths(const Bundle *bundle, const Array *inputs, const char *where) {
  const int64_t *past = inputs[1].data, *added = inputs[2].data;
  int64_t context = bundle->generation.context;
  for (int64_t row = 0; row < inputs[0].shape[0]; row++) {
    if (added[row] < 0 || added[row] > inputs[0].shape[1]) {
      fail(EXIT_USAGE, "%s: 'new_lengths' holds %lld, but a row of 'input_ids' has %lld tokens", where,
           (long long)added[row], (long long)inputs[0].shape[1]);
    }
    if (past[row] < 0 || past[row] > context - added[row]) {
      fail(EXIT_USAGE, "%s: %lld tokens after %lld do not fit the bundle's context of %lld", where,
           (long long)added[row], (long long)past[row], (long long)context);
    }
  }
}

/* No source may be longer than its row; the mask must say the same. */
static void check_source_lengths(const Array *inputs, const char *where) {
  const int64_t *mask = inputs[1].data, *lengths = inputs[2].data, width = inputs[0].shape[1];
  for (int64_t row = 0; row < inputs[0].shape[0]; row++) {
    if (lengths[row] > width) {
      fail(EXIT_USAGE, "%s: 'source_lengths' holds %lld, but a row of ids has %lld tokens", where,
           (long long)lengths[row], (long long)width);
    }
    for (int64_t at = 0; at < width; at++) {
      if ((mask[row * width + at] != 0) != (at < lengths[row])) {
        fail(EXIT_USAGE, "%s: 'attention_mask' must be 1 for the tokens that 'source_lengths' counts and else 0",
             where);
      }
    }
  }
}

static void check_input(Sizes *known, const Function *function, const Spec *spec, const Array *input,
                        const char *where) {
  if (input->type != spec->type || input->dimensions != spec->dimensions) {
    fail(EXIT_USAGE, "%s: input '%s' must have %d dimensions, found %d", where, spec->name, spec->dimensions,
         input->dimensions);
  }
  for (int at = 0; at < spec->dimensions; at++) {
    check_size(known, spec, input, at, where);
    const char *name = spec->size_names[at];
    bool is_sequence = name != NULL && strcmp(name, "sequence") == 0;
    if (is_sequence && function->longest > 0 && input->shape[at] > function->longest) {
      fail(EXIT_USAGE, "%s: the text has %lld tokens, the model takes at most %lld", where,
           (long long)input->shape[at], (long long)function->longest);
    }
  }
  check_values(spec, input, where);
}

void check_inputs(const Bundle *bundle, FunctionName name, const Array *inputs, const char *where) {
  const Function *function = &bundle->functions[name];
  Sizes known = {.count = 0};
  for (size_t i = 0; i < function->input_count; i++) {
    check_input(&known, function, &function->inputs[i], &inputs[i], where);
  }
  if (name == ENCODE) {
    check_source_lengths(inputs, where);
  } else if (bundle->generation.context > 0) {
    check_lengths(bundle, inputs, where);
  }
}

static void fill(Array *array, int64_t value) {
  size_t count = array->bytes / (array->type->bits / 8u);
  int64_t *items = allocate_data(array->bytes);
  for (size_t i = 0; i < count; i++) items[i] = value;
  array->data = items;
}

Array *inputs_from_text(const Bundle *bundle, const Text *text) {
  const Function *function = &bundle->functions[MAIN];
  Array *inputs = allocate(function->input_count, sizeof *inputs);
  bool has_ids = false;
  for (size_t i = 0; i < function->input_count; i++) {
    const Spec *spec = &function->inputs[i];
    Array *array = &inputs[i];
    bool is_ids = strcmp(spec->name, "input_ids") == 0;
    if (spec->dimensions != 2 || spec->type->code != kDLInt || spec->type->bits != 64) {
      fail(EXIT_USAGE, "input '%s' cannot be made from token ids; use --tensors", spec->name);
    }
    if (!is_ids && !spec->has_default) {
      fail(EXIT_USAGE, "input '%s' has no default, so token ids are not enough; use --tensors", spec->name);
    }
    array->type = spec->type;
    array->dimensions = 2;
    array->shape[0] = 1;
    array->shape[1] = (int64_t)text->count;
    array->bytes = array_bytes(array->type, 2, array->shape, spec->name);
    fill(array, spec->fallback);
    if (is_ids) memcpy((void *)(uintptr_t)array->data, text->ids, array->bytes);
    has_ids = has_ids || is_ids;
  }
  if (!has_ids) fail(EXIT_USAGE, "the model has no input 'input_ids'; use --tensors");
  return inputs;
}

void inputs_release(const Bundle *bundle, FunctionName name, Array *inputs) {
  for (size_t i = 0; i < bundle->functions[name].input_count; i++) free((void *)(uintptr_t)inputs[i].data);
  free(inputs);
}
