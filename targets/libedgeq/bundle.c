#include "bundle.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "digests.h"
#include "fail.h"
#include "files.h"
#include "generation_table.h"
#include "json.h"
#include "sha256.h"

enum { FORMAT_VERSION = 1, DIGEST_BLOCK = 1 << 17 };
static const size_t LARGEST_MANIFEST = (size_t)16 << 20;
static const char MANIFEST[] = "manifest.json", WEIGHTS[] = "weights.bin";

char *bundle_file(const Bundle *bundle, const char *name) {
  size_t length = strlen(bundle->folder) + strlen(name) + 2;
  char *path = allocate(length, 1);
  snprintf(path, length, "%s/%s", bundle->folder, name);
  return path;
}

/* manifest.sha256 is what sha256sum prints: digest, two spaces, file name. */
static void check_manifest_digest(const Bundle *bundle, const Mapping *manifest, const char *path) {
  char expected[SHA256_HEX] = {0}, found[1][SHA256_HEX];
  char *digest_path = bundle_file(bundle, "manifest.sha256");
  Mapping digest = map_file(digest_path, EXIT_FAULT);
  if (digest.size < SHA256_HEX) fail(EXIT_FAULT, "%s holds no SHA-256; copy the bundle again", digest_path);
  memcpy(expected, digest.data, SHA256_HEX - 1);
  sha256_hex(&(Message){manifest->data, manifest->size}, 1, found);
  if (strcmp(found[0], expected) != 0) {
    fail(EXIT_FAULT, "%s is damaged: its SHA-256 is %.12s..., expected %.12s...; copy the bundle again", path,
         found[0], expected);
  }
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

/* Where the next pieces go: whole blocks from the front, since many of one length are compared together, others
 * from the back. */
typedef struct {
  Piece *front, *back;
} Pieces;

/* Writes a piece for every block of a file. */
static void add_pieces(Pieces *pieces, const JsonValue *item, Mapping data, const char *file) {
  const JsonValue *digests = json_member(item, "blocks", JSON_ARRAY, file);
  size_t wanted = data.size / DIGEST_BLOCK + (data.size % DIGEST_BLOCK > 0), at = 0;
  if (digests->count != wanted) {
    fail(EXIT_FAULT, "%s: '%s' has %zu digests of blocks, not %zu", file, item->key, digests->count, wanted);
  }
  for (const JsonValue *digest = digests->children; digest != NULL; digest = digest->next, at += DIGEST_BLOCK) {
    if (digest->kind != JSON_TEXT) fail(EXIT_FAULT, "%s: 'blocks' must be texts", file);
    bool whole = data.size - at >= DIGEST_BLOCK;
    Piece *piece = whole ? pieces->front++ : --pieces->back;
    *piece = (Piece){{data.data + at, whole ? DIGEST_BLOCK : data.size - at}, digest->text, item->key};
  }
}

/* Begins to compare the blocks of weights.bin, or of all other files; `mappings` are those of the files, in order. */
static Digests *begin_digests(const JsonValue *files, const Mapping *mappings, bool of_weights, int threads,
                              const char *file) {
  size_t count = 0;
  for (const JsonValue *item = files->children; item != NULL; item = item->next) {
    bool taken = (strcmp(item->key, WEIGHTS) == 0) == of_weights;
    count += taken ? json_member(item, "blocks", JSON_ARRAY, file)->count : 0;
  }
  Piece *all = allocate(count, sizeof *all);
  Pieces pieces = {all, all + count};
  for (const JsonValue *item = files->children; item != NULL; item = item->next, mappings++) {
    if ((strcmp(item->key, WEIGHTS) == 0) == of_weights) add_pieces(&pieces, item, *mappings, file);
  }
  return digests_begin(all, count, threads);
}

static void end_digests(const Bundle *bundle, Digests *digests) {
  const char *damaged = digests_end(digests);
  if (damaged != NULL) {
    fail(EXIT_FAULT, "%s is damaged: its SHA-256 is not what the manifest says; copy the bundle again",
         bundle_file(bundle, damaged));
  }
}

/* Maps every listed file, which checks its size. */
static Mapping *map_files(const Bundle *bundle, const JsonValue *files, const char *file) {
  Mapping *mappings = allocate(files->count, sizeof *mappings);
  size_t nth = 0;
  for (const JsonValue *item = files->children; item != NULL; item = item->next, nth++) {
    if (!plain_name(item->key)) fail(EXIT_FAULT, "%s: '%s' is not a plain file name", file, item->key);
    char *path = bundle_file(bundle, item->key);
    size_t size = (size_t)json_integer(item, "bytes", 0, LARGEST_BYTES, file);
    mappings[nth] = map_file(path, EXIT_FAULT);
    if (mappings[nth].size != size) {
      fail(EXIT_FAULT, "%s has %zu bytes, the manifest says %zu; copy the bundle again", path, mappings[nth].size,
           size);
    }
    free(path);
  }
  return mappings;
}

/* Checks every listed file, and keeps weights.bin, golden.bin and tokenizer.bin. */
static void read_files(Bundle *bundle, const JsonValue *root, int digest_threads, Mapping *weights, Mapping *golden,
                       const char *file) {
  bool has_weights = false, has_golden = false, has_model = false;
  const JsonValue *files = json_member(root, "files", JSON_OBJECT, file);
  Mapping *mappings = map_files(bundle, files, file), *data = mappings;
  if (digest_threads != NO_DIGESTS) {
    end_digests(bundle, begin_digests(files, mappings, false, digest_threads, file));
    bundle->weights_digests = begin_digests(files, mappings, true, digest_threads, file);
  }
  for (const JsonValue *item = files->children; item != NULL; item = item->next, data++) {
    has_model = has_model || strcmp(item->key, "model.so") == 0;
    if (strcmp(item->key, WEIGHTS) == 0) {
      has_weights = true;
      *weights = *data;
    } else if (strcmp(item->key, "golden.bin") == 0) {
      has_golden = true;
      *golden = *data;
    } else if (strcmp(item->key, "tokenizer.bin") == 0) {
      bundle->tokenizer = *data;
    } else {
      unmap_file(*data);
    }
  }
  free(mappings);
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
  bundle->pooling = json_text(model, "pooling", file);
  bundle->normalize = json_member(model, "normalize", JSON_BOOL, file)->boolean;
  const JsonValue *longest = json_find(model, "max_length");
  if (longest == NULL || longest->kind != JSON_NULL) {
    bundle->functions[MAIN].longest = json_integer(model, "max_length", 1, LARGEST_SIZE, file);
  }
  const JsonValue *labels = json_member(model, "labels", JSON_ARRAY, file);
  bundle->labels = allocate(labels->count, sizeof *bundle->labels);
  for (const JsonValue *label = labels->children; label != NULL; label = label->next) {
    if (label->kind != JSON_TEXT) fail(EXIT_FAULT, "%s: 'labels' must be texts", file);
    bundle->labels[bundle->label_count++] = label->text;
  }
}

static void read_golden_run(Bundle *bundle, FunctionName name, const JsonValue *table, Mapping data, const char *file) {
  const Function *function = &bundle->functions[name];
  size_t inputs = function->input_count, outputs = function->output_count;
  GoldenRun *run = &bundle->golden[bundle->golden_count++];
  run->function = name;
  run->inputs = read_stored(table, "inputs", data, function->inputs, &inputs, file);
  run->outputs = read_stored(table, "outputs", data, function->outputs, &outputs, file);
}

static void read_golden(Bundle *bundle, const JsonValue *root, Mapping data, const char *file) {
  const JsonValue *golden = json_member(root, "golden", JSON_OBJECT, file);
  const JsonValue *steps = bundle->generation.context > 0 ? json_member(golden, "steps", JSON_ARRAY, file) : NULL;
  bundle->golden = allocate(2 + (steps != NULL ? steps->count : 0), sizeof *bundle->golden);
  if (reads_source(bundle)) {
    read_golden_run(bundle, ENCODE, json_member(golden, "source", JSON_OBJECT, file), data, file);
  }
  read_golden_run(bundle, MAIN, golden, data, file);
  for (const JsonValue *step = steps != NULL ? steps->children : NULL; step != NULL; step = step->next) {
    read_golden_run(bundle, MAIN, step, data, file);
  }
}

void bundle_open(Bundle *bundle, const char *folder, int digest_threads) {
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
  read_files(bundle, root, digest_threads, &weights, &golden, path);
  read_model(bundle, root, path);
  Function *function = &bundle->functions[MAIN];
  function->name = "main";
  function->inputs = read_specs(root, "inputs", &function->input_count, path);
  function->outputs = read_specs(root, "outputs", &function->output_count, path);
  bundle->weights = read_stored(root, "weights", weights, NULL, &bundle->weight_count, path);
  read_generation(bundle, root, path);
  read_golden(bundle, root, golden, path);
}

void bundle_check_weights(Bundle *bundle) {
  if (bundle->weights_digests == NULL) return;
  Digests *digests = bundle->weights_digests;
  bundle->weights_digests = NULL;
  end_digests(bundle, digests);
}
