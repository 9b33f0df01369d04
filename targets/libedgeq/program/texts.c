#include "texts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "files.h"
#include "tokenizer.h"
#include "utf8.h"

static int64_t *read_ids(const char *at, const char *end, size_t *count, const char *path, size_t line) {
  /* Every id takes a digit and a separator. */
  int64_t *ids = allocate((size_t)(end - at) / 2 + 1, sizeof *ids);
  *count = 0;
  while (at < end) {
    int64_t id = 0;
    if (*at == ' ' || *at == '\t' || *at == '\r') {
      at++;
      continue;
    }
    for (; at < end && *at >= '0' && *at <= '9'; at++) {
      if (__builtin_mul_overflow(id, 10, &id) || __builtin_add_overflow(id, *at - '0', &id)) {
        fail(EXIT_USAGE, "%s, line %zu: a token id is too large", path, line);
      }
    }
    if (at < end && *at != ' ' && *at != '\t' && *at != '\r') {
      fail(EXIT_USAGE, "%s, line %zu: token ids separated by spaces are expected, found byte 0x%02x", path, line,
           (unsigned char)*at);
    }
    ids[(*count)++] = id;
  }
  if (*count == 0) fail(EXIT_USAGE, "%s, line %zu is empty: one text's token ids are expected", path, line);
  return ids;
}

static Text *read_lines_of_ids(const char *path, size_t *count) {
  Mapping file = map_file(path, EXIT_USAGE);
  const char *at = file.data, *end = file.data + file.size;
  size_t lines = 1;
  for (size_t i = 0; i < file.size; i++) lines += file.data[i] == '\n';
  Text *texts = allocate(lines, sizeof *texts);
  *count = 0;
  while (at < end) {
    const char *stop = memchr(at, '\n', (size_t)(end - at));
    if (stop == NULL) stop = end;
    Text *text = &texts[(*count)++];
    text->line = *count;
    text->ids = read_ids(at, stop, &text->count, path, text->line);
    at = stop < end ? stop + 1 : end;
  }
  if (*count == 0) fail(EXIT_USAGE, "%s is empty: one line of token ids a text is expected", path);
  return texts;
}

static Text encode(const TokenizerTable *tokenizer, const char *text, size_t size, size_t line) {
  Buffer ids = {0};
  for (size_t at = 0; at < size;) {
    size_t length = character_size(text + at, size - at);
    if (length == 0 || text[at] == '\0') {
      fail(EXIT_USAGE, "line %zu of the texts is not UTF-8: it holds byte 0x%02x", line, (unsigned char)text[at]);
    }
    at += length;
  }
  tokenizer_encode(tokenizer, text, size, &ids);
  if (ids.size == 0) fail(EXIT_USAGE, "line %zu of the texts has no tokens; give at least one word", line);
  return (Text){(int64_t *)(void *)ids.data, ids.size / sizeof(int64_t), line};
}

static bool is_blank(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++) {
    if (strchr(" \t\r\v\f", text[i]) == NULL || text[i] == '\0') return false;
  }
  return true;
}

/* One text a line; blank lines are skipped, but counted. */
static Text *read_lines(const TokenizerTable *tokenizer, const char *path, size_t *count) {
  static const char MARK[] = "\xEF\xBB\xBF"; /* some editors put it first */
  Mapping file = map_file(path, EXIT_USAGE);
  const char *at = file.data, *end = file.data + file.size;
  size_t lines = 1, line = 0;
  if (file.size >= 3 && memcmp(at, MARK, 3) == 0) at += 3;
  for (size_t i = 0; i < file.size; i++) lines += file.data[i] == '\n';
  Text *texts = allocate(lines, sizeof *texts);
  while (at < end) {
    const char *stop = memchr(at, '\n', (size_t)(end - at)), *next = stop == NULL ? end : stop + 1;
    if (stop == NULL) stop = end;
    line++;
    while (stop > at && stop[-1] == '\r') stop--;
    while (at < stop && *at == '\r') at++;
    if (!is_blank(at, (size_t)(stop - at))) texts[(*count)++] = encode(tokenizer, at, (size_t)(stop - at), line);
    at = next;
  }
  if (*count == 0) fail(EXIT_USAGE, "%s holds no text: one text a line is expected", path);
  return texts;
}

static void read_with_tokenizer(Texts *texts, const Bundle *bundle, const Options *options) {
  char *path = bundle_file(bundle, "tokenizer.bin");
  if (bundle->tokenizer.size == 0) fail(EXIT_USAGE, "the bundle carries no tokenizer.bin; give token ids with --ids");
  texts->tokenizer = tokenizer_table(bundle->tokenizer, path);
  free(path);
  if (options->file != NULL) {
    texts->items = read_lines(&texts->tokenizer, options->file, &texts->count);
    return;
  }
  size_t size = strlen(options->text);
  if (is_blank(options->text, size)) fail(EXIT_USAGE, "the text is empty; give at least one word");
  texts->items = allocate(1, sizeof *texts->items);
  texts->items[texts->count++] = encode(&texts->tokenizer, options->text, size, 1);
}

Texts read_texts(const Bundle *bundle, const Options *options) {
  Texts texts = {.kind = options->ids != NULL ? "ids" : "texts"};
  if (options->ids != NULL) texts.items = read_lines_of_ids(options->ids, &texts.count);
  if (needs_tokenizer(options)) read_with_tokenizer(&texts, bundle, options);
  return texts;
}

void print_texts(const Texts *texts, bool json) {
  for (size_t i = 0; i < texts->count; i++) {
    const Text *text = &texts->items[i];
    if (json) printf("{\"line\": %zu, \"ids\": [", text->line);
    for (size_t at = 0; at < text->count; at++) {
      printf(at == 0 ? "%lld" : json ? ", %lld" : " %lld", (long long)text->ids[at]);
    }
    puts(json ? "]}" : "");
  }
}
