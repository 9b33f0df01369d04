#include "specs.h"

#include <dlpack/dlpack.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"

const ElementType *element_type(const char *name) {
  static const ElementType types[] = {
      {"float32", kDLFloat, 32}, {"float16", kDLFloat, 16}, {"int64", kDLInt, 64},  {"int32", kDLInt, 32},
      {"int16", kDLInt, 16},     {"uint16", kDLUInt, 16},   {"int8", kDLInt, 8},    {"uint8", kDLUInt, 8},
  };
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    if (strcmp(types[i].name, name) == 0) return &types[i];
  }
  return NULL;
}

size_t array_bytes(const ElementType *type, int dimensions, const int64_t *shape, const char *what) {
  int64_t bytes = type->bits / 8;
  for (int i = 0; i < dimensions; i++) {
    if (shape[i] < 1 || __builtin_mul_overflow(bytes, shape[i], &bytes) || bytes > LARGEST_BYTES) {
      fail(EXIT_FAULT, "the shape of %s is not possible", what);
    }
  }
  return (size_t)bytes;
}

static const ElementType *read_type(const JsonValue *table, const char *file) {
  const ElementType *type = element_type(json_text(table, "dtype", file));
  if (type == NULL) fail(EXIT_FAULT, "%s: unknown dtype '%s'", file, json_text(table, "dtype", file));
  return type;
}

static bool read_optional(const JsonValue *table, const char *key, int64_t *value, const char *file) {
  if (json_find(table, key) == NULL) return false;
  *value = json_integer(table, key, -LARGEST_VALUE, LARGEST_VALUE, file);
  return true;
}

static void read_spec(const JsonValue *table, Spec *spec, const char *file) {
  spec->name = json_text(table, "name", file);
  spec->type = read_type(table, file);
  const JsonValue *shape = json_member(table, "shape", JSON_ARRAY, file);
  if (shape->count > MAX_DIMENSIONS) fail(EXIT_FAULT, "%s: '%s' has too many dimensions", file, spec->name);
  for (const JsonValue *size = shape->children; size != NULL; size = size->next) {
    int at = spec->dimensions++;
    if (size->kind == JSON_TEXT && size->text[0] != '\0') {
      spec->size_names[at] = size->text;
      spec->shape[at] = -1;
    } else if (size->kind == JSON_INTEGER && size->integer >= 1 && size->integer <= LARGEST_SIZE) {
      spec->shape[at] = size->integer;
    } else {
      fail(EXIT_FAULT, "%s: a size of '%s' is neither a name nor a positive integer", file, spec->name);
    }
  }
  spec->has_minimum = read_optional(table, "minimum", &spec->minimum, file);
  spec->has_maximum = read_optional(table, "maximum", &spec->maximum, file);
  spec->has_default = read_optional(table, "default", &spec->fallback, file);
}

Spec *read_specs(const JsonValue *root, const char *key, size_t *count, const char *file) {
  const JsonValue *list = json_member(root, key, JSON_ARRAY, file);
  if (list->count == 0) fail(EXIT_FAULT, "%s: '%s' is empty", file, key);
  Spec *specs = allocate(list->count, sizeof *specs);
  for (const JsonValue *item = list->children; item != NULL; item = item->next) {
    read_spec(item, &specs[(*count)++], file);
  }
  return specs;
}

Array *read_stored(const JsonValue *parent, const char *key, Mapping data, const Spec *specs, size_t *count,
                   const char *file) {
  const JsonValue *list = json_member(parent, key, JSON_ARRAY, file);
  if (specs != NULL && list->count != *count) fail(EXIT_FAULT, "%s: golden '%s' is incomplete", file, key);
  Array *arrays = allocate(list->count, sizeof *arrays);
  size_t at = 0;
  for (const JsonValue *item = list->children; item != NULL; item = item->next, at++) {
    Array *array = &arrays[at];
    Spec stored = {0};
    read_spec(item, &stored, file);
    for (int i = 0; i < stored.dimensions; i++) {
      bool fits = specs == NULL || specs[at].dimensions != stored.dimensions || specs[at].shape[i] < 0 ||
                  specs[at].shape[i] == stored.shape[i];
      if (stored.shape[i] < 0 || !fits) fail(EXIT_FAULT, "%s: a size of '%s' is wrong", file, stored.name);
    }
    if (specs != NULL && (strcmp(stored.name, specs[at].name) != 0 || stored.type != specs[at].type ||
                          stored.dimensions != specs[at].dimensions)) {
      fail(EXIT_FAULT, "%s: golden '%s' does not fit the model's", file, stored.name);
    }
    array->type = stored.type;
    array->dimensions = stored.dimensions;
    memcpy(array->shape, stored.shape, sizeof array->shape);
    array->bytes = array_bytes(stored.type, stored.dimensions, stored.shape, stored.name);
    size_t offset = (size_t)json_integer(item, "offset", 0, LARGEST_BYTES, file);
    size_t claimed = (size_t)json_integer(item, "bytes", 0, LARGEST_BYTES, file);
    if (claimed != array->bytes) fail(EXIT_FAULT, "%s: 'bytes' of '%s' is wrong", file, stored.name);
    if (offset % DATA_ALIGNMENT != 0 || offset > data.size || array->bytes > data.size - offset) {
      fail(EXIT_FAULT, "%s: tensor '%s' lies outside its file", file, stored.name);
    }
    array->data = data.data + offset;
  }
  *count = list->count;
  return arrays;
}
