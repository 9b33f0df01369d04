#include "bundle.h"

#include <ctype.h>
#include <dlpack/dlpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "fail.h"
#include "files.h"
#include "json.h"
#include "sha256.h"

enum { FORMAT_VERSION = 1 };
static const size_t LARGEST_MANIFEST = (size_t)16 << 20;
static const int64_t LARGEST_SIZE = (int64_t)1 << 40;
static const int64_t LARGEST_VALUE = (int64_t)1 << 62;
static const char MANIFEST[] = "manifest.json";

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
  size_t bytes = type->bits / 8u;
  for (int i = 0; i < dimensions; i++) {
    if (shape[i] < 1 || __builtin_mul_overflow(bytes, (size_t)shape[i], &bytes) || bytes > (size_t)1 << 46) {
      fail(EXIT_FAULT, "the shape of %s is not possible", what);
    }
  }
  return bytes;
}

char *bundle_file(const Bundle *bundle, const char *name) {
  size_t length = strlen(bundle->folder) + strlen(name) + 2;
  char *path = allocate(length, 1);
  snprintf(path, length, "%s/%s", bundle->folder, name);
  return path;
}

static void check_digest(const char *data, size_t size, const char *expected, const char *path) {
  char found[SHA256_HEX];
  sha256_hex(data, size, found);
  if (strcmp(found, expected) != 0) {
    fail(EXIT_FAULT, "%s is damaged: its SHA-256 is %.12s..., expected %.12s...; copy the bundle again", path,
         found, expected);
  }
}

/* manifest.sha256 is what sha256sum prints: digest, two spaces, file name. */
static void check_manifest_digest(const Bundle *bundle, const Mapping *manifest, const char *path) {
  char expected[SHA256_HEX] = {0};
  char *digest_path = bundle_file(bundle, "manifest.sha256");
  Mapping digest = map_file(digest_path, EXIT_FAULT);
  if (digest.size < SHA256_HEX) fail(EXIT_FAULT, "%s holds no SHA-256; copy the bundle again", digest_path);
  memcpy(expected, digest.data, SHA256_HEX - 1);
  check_digest(manifest->data, manifest->size, expected, path);
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

static Spec *read_specs(const JsonValue *root, const char *key, size_t *count, const char *file) {
  const JsonValue *list = json_member(root, key, JSON_ARRAY, file);
  if (list->count == 0) fail(EXIT_FAULT, "%s: '%s' is empty", file, key);
  Spec *specs = allocate(list->count, sizeof *specs);
  for (const JsonValue *item = list->children; item != NULL; item = item->next) {
    read_spec(item, &specs[(*count)++], file);
  }
  return specs;
}

/* Tensors that lie in `data`; with `specs`, their names, types and shapes must fit those. */
static Array *read_stored(const JsonValue *parent, const char *key, Mapping data, const Spec *specs,
                          size_t *count, const char *file) {
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
    size_t offset = (size_t)json_integer(item, "offset", 0, LARGEST_VALUE, file);
    size_t claimed = (size_t)json_integer(item, "bytes", 0, LARGEST_VALUE, file);
    if (claimed != array->bytes) fail(EXIT_FAULT, "%s: 'bytes' of '%s' is wrong", file, stored.name);
    if (offset % DATA_ALIGNMENT != 0 || offset > data.size || array->bytes > data.size - offset) {
      fail(EXIT_FAULT, "%s: tensor '%s' lies outside its file", file, stored.name);
    }
    array->data = data.data + offset;
  }
  *count = list->count;
  return arrays;
}

static bool plain_name(const char *name) {
  bool start = true;
  for (; *name != '\0'; name++) {
    bool word = isalnum((unsigned char)*name) || *name == '_';
    if (start && !word) return false;
    if (!word && strchr(".+-/", *name) == NULL) return false;
    start = *name == '/';
  }
  return !start;
}

/* Maps every listed file, which checks its size, and keeps weights.bin and golden.bin. */
static void check_files(const Bundle *bundle, const JsonValue *root, bool verify, Mapping *weights,
                        Mapping *golden, const char *file) {
  bool has_weights = false, has_golden = false, has_model = false;
  const JsonValue *files = json_member(root, "files", JSON_OBJECT, file);
  for (const JsonValue *item = files->children; item != NULL; item = item->next) {
    if (!plain_name(item->key)) fail(EXIT_FAULT, "%s: '%s' is not a plain file name", file, item->key);
    char *path = bundle_file(bundle, item->key);
    size_t size = (size_t)json_integer(item, "bytes", 0, LARGEST_VALUE, file);
    Mapping data = map_file(path, EXIT_FAULT);
    if (data.size != size) {
      fail(EXIT_FAULT, "%s has %zu bytes, the manifest says %zu; copy the bundle again", path, data.size, size);
    }
    if (verify) check_digest(data.data, data.size, json_text(item, "sha256", file), path);
    has_model = has_model || strcmp(item->key, "model.so") == 0;
    if (strcmp(item->key, "weights.bin") == 0) {
      has_weights = true;
      *weights = data;
    } else if (strcmp(item->key, "golden.bin") == 0) {
      has_golden = true;
      *golden = data;
    }
    free(path);
  }
  if (!has_weights || !has_golden || !has_model) {
    fail(EXIT_FAULT, "%s: 'files' lacks model.so, weights.bin or golden.bin", file);
  }
}

static void check_processor(const JsonValue *root, const char *file) {
  const JsonValue *target = json_member(root, "target", JSON_OBJECT, file);
  const JsonValue *flags = json_member(target, "cpu_flags", JSON_ARRAY, file);
  for (const JsonValue *flag = flags->children; flag != NULL; flag = flag->next) {
    if (flag->kind != JSON_TEXT) fail(EXIT_FAULT, "%s: 'cpu_flags' must be texts", file);
    if (!cpu_has(flag->text)) {
      fail(EXIT_FAULT, "the bundle is for %s, and this processor lacks its %s; compile it for another target",
           json_text(target, "name", file), flag->text);
    }
  }
}

static void read_model(Bundle *bundle, const JsonValue *root, const char *file) {
  const JsonValue *model = json_member(root, "model", JSON_OBJECT, file);
  bundle->task = json_text(model, "task", file);
  if (strcmp(bundle->task, "seq2seq") == 0) {
    fail(EXIT_USAGE, "the bundle reads one text and writes another, which edgeq-run cannot do; use `edgeq run`");
  }
  bundle->pooling = json_text(model, "pooling", file);
  bundle->normalize = json_member(model, "normalize", JSON_BOOL, file)->boolean;
  const JsonValue *longest = json_find(model, "max_length");
  if (longest == NULL || longest->kind != JSON_NULL) {
    bundle->max_length = json_integer(model, "max_length", 1, LARGEST_SIZE, file);
  }
  const JsonValue *labels = json_member(model, "labels", JSON_ARRAY, file);
  bundle->labels = allocate(labels->count, sizeof *bundle->labels);
  for (const JsonValue *label = labels->children; label != NULL; label = label->next) {
    if (label->kind != JSON_TEXT) fail(EXIT_FAULT, "%s: 'labels' must be texts", file);
    bundle->labels[bundle->label_count++] = label->text;
  }
}

static void check_state(const Spec *spec, const char *file) {
  bool fits = spec->type->code == kDLFloat && spec->dimensions > 0 && spec->size_names[0] != NULL &&
              strcmp(spec->size_names[0], "batch") == 0;
  for (int i = 1; fits && i < spec->dimensions; i++) {
    const char *name = spec->size_names[i];
    fits = name == NULL || strcmp(name, "context") == 0 || strcmp(name, "context_blocks") == 0;
  }
  if (!fits) fail(EXIT_FAULT, "%s: cache '%s' must be floats [batch, ...]", file, spec->name);
}

static bool is_lengths(const Spec *spec, const char *name, int dimensions) {
  return strcmp(spec->name, name) == 0 && spec->type->code == kDLInt && spec->type->bits == 64 &&
         spec->dimensions == dimensions && spec->size_names[0] != NULL && strcmp(spec->size_names[0], "batch") == 0;
}

/* The interface that decoder.c drives. */
static void check_decoder(const Bundle *bundle, const char *file) {
  const Spec *in = bundle->inputs, *out = bundle->outputs;
  if (bundle->input_count != DECODER_INPUTS || !is_lengths(&in[0], "input_ids", 2) || in[0].size_names[1] == NULL ||
      strcmp(in[0].size_names[1], "sequence") != 0 || !is_lengths(&in[1], "past_lengths", 1) ||
      !is_lengths(&in[2], "new_lengths", 1)) {
    fail(EXIT_FAULT, "%s: the inputs of a decoder are input_ids, past_lengths, new_lengths", file);
  }
  if (bundle->output_count != 1 || strcmp(out->type->name, "float32") != 0 || out->dimensions != 2 ||
      out->size_names[0] == NULL || strcmp(out->size_names[0], "batch") != 0 || out->shape[1] < 1) {
    fail(EXIT_FAULT, "%s: the output of a decoder is one row of float32 logits for each sequence", file);
  }
  if (!in->has_minimum || !in->has_maximum || in->minimum != 0 || in->maximum != out->shape[1] - 1) {
    fail(EXIT_FAULT, "%s: ids of a decoder must lie in 0..%lld", file, (long long)out->shape[1] - 1);
  }
  if (bundle->max_length != bundle->context) fail(EXIT_FAULT, "%s: 'max_length' must be the context", file);
}

static void read_generation(Bundle *bundle, const JsonValue *root, const char *file) {
  bool generates = strcmp(bundle->task, "generate") == 0;
  if ((json_find(root, "generation") != NULL) != generates) {
    fail(EXIT_FAULT, "%s: the task '%s' and 'generation' do not belong together", file, bundle->task);
  }
  if (!generates) return;
  const JsonValue *generation = json_member(root, "generation", JSON_OBJECT, file);
  bundle->context = json_integer(generation, "context", 1, LARGEST_SIZE, file);
  bundle->state = read_specs(generation, "state", &bundle->state_count, file);
  for (size_t i = 0; i < bundle->state_count; i++) check_state(&bundle->state[i], file);
  check_decoder(bundle, file);
  const JsonValue *end_ids = json_member(generation, "end_ids", JSON_ARRAY, file);
  bundle->end_ids = allocate(end_ids->count, sizeof *bundle->end_ids);
  for (const JsonValue *end = end_ids->children; end != NULL; end = end->next) {
    if (end->kind != JSON_INTEGER || end->integer < 0 || end->integer > bundle->inputs[0].maximum) {
      fail(EXIT_FAULT, "%s: 'end_ids' must be token ids", file);
    }
    bundle->end_ids[bundle->end_count++] = end->integer;
  }
}

static GoldenRun read_golden_run(const Bundle *bundle, const JsonValue *table, Mapping data, const char *file) {
  size_t inputs = bundle->input_count, outputs = bundle->output_count;
  GoldenRun run;
  run.inputs = read_stored(table, "inputs", data, bundle->inputs, &inputs, file);
  run.outputs = read_stored(table, "outputs", data, bundle->outputs, &outputs, file);
  return run;
}

static void read_golden(Bundle *bundle, const JsonValue *root, Mapping data, const char *file) {
  const JsonValue *golden = json_member(root, "golden", JSON_OBJECT, file);
  const JsonValue *steps = bundle->context > 0 ? json_member(golden, "steps", JSON_ARRAY, file) : NULL;
  bundle->golden = allocate(1 + (steps != NULL ? steps->count : 0), sizeof *bundle->golden);
  bundle->golden[bundle->golden_count++] = read_golden_run(bundle, golden, data, file);
  for (const JsonValue *step = steps != NULL ? steps->children : NULL; step != NULL; step = step->next) {
    bundle->golden[bundle->golden_count++] = read_golden_run(bundle, step, data, file);
  }
}

void bundle_open(Bundle *bundle, const char *folder, bool verify) {
  Mapping weights = {NULL, 0}, golden = {NULL, 0};
  memset(bundle, 0, sizeof *bundle);
  bundle->folder = realpath(folder, NULL);
  if (bundle->folder == NULL) fail(EXIT_USAGE, "no bundle folder at %s", folder);
  char *path = bundle_file(bundle, MANIFEST);
  Mapping manifest = map_file(path, EXIT_USAGE);
  if (manifest.size > LARGEST_MANIFEST) fail(EXIT_FAULT, "%s is too large for a manifest", path);
  check_manifest_digest(bundle, &manifest, path);
  const JsonValue *root = json_parse(manifest.data, manifest.size, path);
  if (strcmp(json_text(root, "format", path), "edgeq-bundle") != 0) {
    fail(EXIT_FAULT, "%s is not the manifest of a bundle", path);
  }
  if (json_integer(root, "format_version", 0, LARGEST_VALUE, path) != FORMAT_VERSION) {
    fail(EXIT_FAULT, "%s is of another format version than %d; compile the bundle again", path, FORMAT_VERSION);
  }
  check_processor(root, path);
  check_files(bundle, root, verify, &weights, &golden, path);
  read_model(bundle, root, path);
  bundle->inputs = read_specs(root, "inputs", &bundle->input_count, path);
  bundle->outputs = read_specs(root, "outputs", &bundle->output_count, path);
  bundle->weights = read_stored(root, "weights", weights, NULL, &bundle->weight_count, path);
  read_generation(bundle, root, path);
  read_golden(bundle, root, golden, path);
}
