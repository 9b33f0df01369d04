#include "bundle_files.h"

#include <ctype.h>
#include <string.h>

#include "digests.h"
#include "specs.h"

enum { DIGEST_BLOCK = 1 << 17, LARGEST_MANIFEST = 1 << 24, LARGEST_DIGEST_FILE = 1 << 12, LARGEST_CODE = 1 << 27 };

static const char MANIFEST[] = "manifest.json", SIGNATURE[] = "manifest.json.minisig", WEIGHTS[] = "weights.bin",
                  GOLDEN[] = "golden.bin", TOKENIZER[] = "tokenizer.bin";

const Mapping *map_manifest(Memory *memory, Memory *scratch, const Source *source) {
  char expected[SHA256_HEX] = {0}, found[1][SHA256_HEX];
  const Mapping *manifest = map_file(memory, source, MANIFEST, LARGEST_MANIFEST, EDGEQ_USAGE);
  /* It is what sha256sum prints: digest, two spaces, file name. */
  const Mapping *digest = map_file(scratch, source, "manifest.sha256", LARGEST_DIGEST_FILE, EDGEQ_DAMAGED);
  if (digest->size < SHA256_HEX) {
    fail(scratch, EDGEQ_DAMAGED, "%s holds no SHA-256; copy the bundle again", path_in(scratch, source, "manifest.sha256"));
  }
  memcpy(expected, digest->data, SHA256_HEX - 1);
  sha256_hex(&(Message){manifest->data, manifest->size}, 1, found);
  if (strcmp(found[0], expected) != 0) {
    fail(scratch, EDGEQ_DAMAGED, "%s is damaged: its SHA-256 is %.12s..., expected %.12s...; copy the bundle again",
         path_in(scratch, source, MANIFEST), found[0], expected);
  }
  return manifest;
}

/* Names of files in folders below the bundle's, and nothing else. */
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

/* A listed file. */
typedef struct {
  const JsonValue *item;
  Mapping data;
  bool is_mapped; /* as a file; else it is in memory */
} ListedFile;

/* Where the next pieces go: whole blocks from the front, since many of one length are compared together, others
 * from the back. */
typedef struct {
  Piece *front, *back;
} Pieces;

static void add_pieces(Pieces *pieces, const Json *json, const ListedFile *file) {
  const JsonValue *digests = json_member(json, file->item, "blocks", JSON_ARRAY);
  size_t size = file->data.size, at = 0;
  for (const JsonValue *digest = json_first(digests); digest != NULL; digest = digest->next, at += DIGEST_BLOCK) {
    json_check(json, digest->kind == JSON_TEXT, "'blocks' must be texts");
    bool whole = size - at >= DIGEST_BLOCK;
    Piece *piece = whole ? pieces->front++ : --pieces->back;
    *piece = (Piece){{file->data.data + at, whole ? DIGEST_BLOCK : size - at}, digest->text, file->item->key,
                     file->is_mapped};
  }
}

static void compare(Memory *scratch, const Source *source, const Json *json, const ListedFile *files, size_t count,
                    int threads) {
  size_t total = 0;
  for (size_t i = 0; i < count; i++) {
    size_t wanted = files[i].data.size / DIGEST_BLOCK + (files[i].data.size % DIGEST_BLOCK > 0);
    size_t found = json_member(json, files[i].item, "blocks", JSON_ARRAY)->count;
    json_check(json, found == wanted, "'%s' has %zu digests of blocks, not %zu", files[i].item->key, found, wanted);
    total += wanted;
  }
  Piece *all = allocate(scratch, total, sizeof *all);
  Pieces pieces = {all, all + total};
  for (size_t i = 0; i < count; i++) add_pieces(&pieces, json, &files[i]);
  const char *damaged = compare_digests(scratch, all, total, threads);
  if (damaged != NULL) {
    fail(scratch, EDGEQ_DAMAGED, "%s is damaged: its SHA-256 is not what the manifest says; copy the bundle again",
         path_in(scratch, source, damaged));
  }
}

/* Whether a model reads this file. The others are for people and other programs. */
static bool is_used(const char *name, const char *code) {
  static const char *const used[] = {WEIGHTS, GOLDEN, TOKENIZER};
  for (size_t i = 0; i < sizeof used / sizeof *used; i++) {
    if (strcmp(name, used[i]) == 0) return true;
  }
  return strcmp(name, code) == 0;
}

/* Whether every file is to be compared with its SHA-256: a signature is of little use without. Bundles that were made
 * before there was another digest have no other. */
static bool compares_all(Memory *scratch, const Source *source, const JsonValue *list, const char *code,
                         const edgeq_open_options *options) {
  if (options->skip_digests || options->verify_all) return !options->skip_digests;
  for (const JsonValue *item = json_first(list); item != NULL; item = item->next) {
    if (is_used(item->key, code) && json_find(item, "crc32") == NULL) return true;
  }
  return has_file(scratch, source, SIGNATURE);
}

/* A file that will be compared when it is used. */
static CheckedFile with_checks(Memory *memory, Memory *scratch, const Source *source, const Json *json,
                               const ListedFile *file) {
  CheckedFile checked;
  char *path = path_in(scratch, source, file->item->key);
  bool fits = checked_file(memory, &checked, file->data, path, json_text(json, file->item, "crc32"));
  json_check(json, fits, "'%s' has no CRC-32 for each of its blocks", file->item->key);
  release(scratch, path);
  return checked;
}

BundleFiles read_files(Memory *memory, Memory *scratch, const Source *source, const Json *json, const char *code,
                       const edgeq_open_options *options) {
  const JsonValue *list = json_member(json, json->root, "files", JSON_OBJECT);
  ListedFile *files = allocate(scratch, list->count, sizeof *files);
  BundleFiles kept = {0};
  CheckedFile code_file = {0};
  bool loads_code = options->kernels == NULL;
  bool all = compares_all(scratch, source, list, code, options), later = !all && !options->skip_digests;
  size_t count = 0;
  for (const JsonValue *item = json_first(list); item != NULL; item = item->next) {
    const char *name = item->key;
    CheckedFile *wanted = strcmp(name, WEIGHTS) == 0     ? &kept.weights
                          : strcmp(name, GOLDEN) == 0    ? &kept.golden
                          : strcmp(name, TOKENIZER) == 0 ? &kept.tokenizer
                          : strcmp(name, code) == 0      ? &code_file
                                                         : NULL;
    json_check(json, plain_name(name), "'%s' is not a plain file name", name);
    size_t most = wanted == &code_file ? LARGEST_CODE : LARGEST_BYTES;
    size_t size = (size_t)json_integer(json, item, "bytes", 0, (int64_t)most);
    if (wanted == NULL && !all) continue;
    Memory *keeps = wanted != NULL && wanted != &code_file ? memory : scratch;
    const Mapping *data = map_file(keeps, source, name, LARGEST_BYTES, EDGEQ_DAMAGED);
    if (data->size != size) {
      fail(scratch, EDGEQ_DAMAGED, "%s has %zu bytes, the manifest says %zu; copy the bundle again",
           path_in(scratch, source, name), data->size, size);
    }
    ListedFile *file = &files[count++];
    *file = (ListedFile){item, *data, can_forget(source)};
    if (wanted == &code_file && loads_code) {
      /* A file may be replaced while it is read: the copy is compared and run. */
      kept.code = elf_copy(memory, data->data, data->size);
      file->data.data = elf_start(kept.code);
      file->is_mapped = false;
    }
    if (wanted != NULL) {
      *wanted = later ? with_checks(keeps, scratch, source, json, file) : (CheckedFile){.data = file->data};
    }
  }
  json_check(json, kept.weights.data.data != NULL && (kept.code != NULL || !loads_code),
             "'files' lacks weights.bin or %s", code);
  if (all) compare(scratch, source, json, files, count, (int)options->threads);
  check_bytes(scratch, &code_file, code_file.data.data, code_file.data.size);
  check_bytes(scratch, &kept.tokenizer, kept.tokenizer.data.data, kept.tokenizer.data.size);
  return kept;
}
