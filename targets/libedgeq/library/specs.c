#include "specs.h"

#include <string.h>

static const struct {
  const char *name;
  size_t bytes;
} TYPES[] = {
    [EDGEQ_FLOAT32] = {"float32", 4}, [EDGEQ_FLOAT16] = {"float16", 2}, [EDGEQ_INT64] = {"int64", 8},
    [EDGEQ_INT32] = {"int32", 4},     [EDGEQ_INT16] = {"int16", 2},     [EDGEQ_UINT16] = {"uint16", 2},
    [EDGEQ_INT8] = {"int8", 1},       [EDGEQ_UINT8] = {"uint8", 1},     [EDGEQ_BOOL] = {"bool", 1},
};
enum { TYPE_COUNT = sizeof TYPES / sizeof *TYPES };

size_t element_bytes(int32_t type) { return TYPES[type].bytes; }

const char *element_name(int32_t type) { return TYPES[type].name; }

size_t tensor_bytes(const Memory *memory, const edgeq_tensor *tensor, const char *what, edgeq_status status) {
  int64_t bytes = (int64_t)element_bytes(tensor->type);
  for (int i = 0; i < tensor->rank; i++) {
    if (tensor->shape[i] < 1 || __builtin_mul_overflow(bytes, tensor->shape[i], &bytes) || bytes > LARGEST_BYTES) {
      fail(memory, status, "the shape of '%s' is not possible: size %lld", what, (long long)tensor->shape[i]);
    }
  }
  return (size_t)bytes;
}

int32_t read_type(const Json *json, const JsonValue *table) {
  const char *name = json_text(json, table, "dtype");
  for (int32_t type = 0; type < TYPE_COUNT; type++) {
    if (strcmp(TYPES[type].name, name) == 0) return type;
  }
  fail(json->memory, EDGEQ_DAMAGED, "%s: unknown dtype '%s'; compile the bundle again", json->file, name);
}

static int32_t read_optional(const Json *json, const JsonValue *table, const char *key, int64_t *value) {
  const JsonValue *found = json_find(table, key);
  if (found == NULL || found->kind == JSON_NULL) return 0;
  *value = json_integer(json, table, key, -LARGEST_VALUE, LARGEST_VALUE);
  return 1;
}

/* Names stay those of the document. */
static Spec read_spec(const Json *json, const JsonValue *table) {
  Spec spec = {.name = json_text(json, table, "name"), .type = read_type(json, table)};
  const JsonValue *shape = json_member(json, table, "shape", JSON_ARRAY);
  json_check(json, shape->count <= EDGEQ_MAX_RANK, "'%s' has too many dimensions", spec.name);
  for (const JsonValue *size = json_first(shape); size != NULL; size = size->next) {
    int at = spec.rank++;
    if (size->kind == JSON_TEXT && size->text[0] != '\0') {
      spec.dimensions[at] = size->text;
      spec.shape[at] = -1;
    } else {
      bool fits = size->kind == JSON_INTEGER && size->integer >= 1 && size->integer <= LARGEST_SIZE;
      json_check(json, fits, "a size of '%s' is neither a name nor a positive integer", spec.name);
      spec.shape[at] = size->integer;
    }
  }
  spec.has_minimum = read_optional(json, table, "minimum", &spec.minimum);
  spec.has_maximum = read_optional(json, table, "maximum", &spec.maximum);
  spec.has_default = read_optional(json, table, "default", &spec.default_value);
  return spec;
}

Spec *read_specs(Memory *memory, const Json *json, const JsonValue *parent, const char *key, size_t *count) {
  const JsonValue *list = json_member(json, parent, key, JSON_ARRAY);
  Spec *specs = allocate(memory, list->count, sizeof *specs);
  *count = 0;
  for (const JsonValue *item = json_first(list); item != NULL; item = item->next) {
    Spec spec = read_spec(json, item);
    spec.name = copy_text(memory, spec.name);
    for (int at = 0; at < spec.rank; at++) {
      if (spec.dimensions[at] != NULL) spec.dimensions[at] = copy_text(memory, spec.dimensions[at]);
    }
    specs[(*count)++] = spec;
  }
  return specs;
}

static void check_fit(const Json *json, const Spec *stored, const Spec *spec) {
  bool fits = strcmp(stored->name, spec->name) == 0 && stored->type == spec->type && stored->rank == spec->rank;
  for (int i = 0; fits && i < stored->rank; i++) fits = spec->shape[i] < 0 || spec->shape[i] == stored->shape[i];
  json_check(json, fits, "golden '%s' does not fit the function's '%s'", stored->name, spec->name);
}

static edgeq_tensor read_one(const Json *json, const JsonValue *item, Mapping data, const Spec *spec) {
  Spec stored = read_spec(json, item);
  edgeq_tensor tensor = {.type = stored.type, .rank = stored.rank};
  for (int i = 0; i < stored.rank; i++) json_check(json, stored.shape[i] > 0, "a size of '%s' is wrong", stored.name);
  if (spec != NULL) check_fit(json, &stored, spec);
  memcpy(tensor.shape, stored.shape, sizeof tensor.shape);
  tensor.bytes = tensor_bytes(json->memory, &tensor, stored.name, EDGEQ_DAMAGED);
  size_t offset = (size_t)json_integer(json, item, "offset", 0, LARGEST_BYTES);
  size_t claimed = (size_t)json_integer(json, item, "bytes", 0, LARGEST_BYTES);
  json_check(json, claimed == tensor.bytes, "'bytes' of '%s' is wrong", stored.name);
  bool inside = offset % EDGEQ_ALIGNMENT == 0 && offset <= data.size && tensor.bytes <= data.size - offset;
  json_check(json, inside, "tensor '%s' lies outside its file", stored.name);
  tensor.data = (void *)(uintptr_t)(data.data + offset);
  return tensor;
}

edgeq_tensor *read_stored(Memory *memory, const Json *json, const JsonValue *parent, const char *key, Mapping data,
                          const Spec *specs, size_t *count) {
  const JsonValue *list = json_member(json, parent, key, JSON_ARRAY);
  json_check(json, specs == NULL || list->count == *count, "golden '%s' is incomplete", key);
  edgeq_tensor *tensors = allocate(memory, list->count, sizeof *tensors);
  size_t at = 0;
  for (const JsonValue *item = json_first(list); item != NULL; item = item->next, at++) {
    tensors[at] = read_one(json, item, data, specs != NULL ? &specs[at] : NULL);
  }
  *count = list->count;
  return tensors;
}
