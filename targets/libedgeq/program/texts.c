#include "texts.h"

#include <stdio.h>
#include <string.h>

#include "stop.h"
#include "input_file.h"

static char *name_of(size_t line, const char *kind) {
  char *name = reserve(64, 1);
  snprintf(name, 64, "line %zu of the %s", line, kind);
  return name;
}

static int64_t *read_ids(const char *at, const char *end, size_t *count, const char *path, size_t line) {
  /* Every id takes a digit and a separator. */
  int64_t *ids = reserve((size_t)(end - at) / 2 + 1, sizeof *ids);
  *count = 0;
  while (at < end) {
    int64_t id = 0;
    if (*at == ' ' || *at == '\t' || *at == '\r') {
      at++;
      continue;
    }
    for (; at < end && *at >= '0' && *at <= '9'; at++) {
      if (__builtin_mul_overflow(id, 10, &id) || __builtin_add_overflow(id, *at - '0', &id)) {
        stop(EXIT_USAGE, "%s, line %zu: a token id is too large", path, line);
      }
    }
    if (at < end && *at != ' ' && *at != '\t' && *at != '\r') {
      stop(EXIT_USAGE, "%s, line %zu: token ids separated by spaces are expected, found byte 0x%02x", path, line,
           (unsigned char)*at);
    }
    ids[(*count)++] = id;
  }
  if (*count == 0) stop(EXIT_USAGE, "%s, line %zu is empty: one text's token ids are expected", path, line);
  return ids;
}

static Texts read_lines_of_ids(const char *path) {
  InputFile file = read_file(path);
  const char *at = file.data, *end = file.data + file.size;
  size_t lines = 1;
  for (size_t i = 0; i < file.size; i++) lines += file.data[i] == '\n';
  Texts texts = {reserve(lines, sizeof *texts.items), 0};
  while (at < end) {
    const char *stop = memchr(at, '\n', (size_t)(end - at));
    if (stop == NULL) stop = end;
    Text *text = &texts.items[texts.count++];
    text->line = texts.count;
    text->ids = read_ids(at, stop, &text->count, path, text->line);
    text->name = name_of(text->line, "ids");
    at = stop < end ? stop + 1 : end;
  }
  if (texts.count == 0) stop(EXIT_USAGE, "%s is empty: one line of token ids a text is expected", path);
  return texts;
}

static Text encode(edgeq_session *session, const char *text, size_t size, size_t line) {
  Text encoded = {.line = line, .name = name_of(line, "texts")};
  const edgeq_text given = {.text = text, .size = size, .name = encoded.name};
  const int64_t *ids = NULL;
  check(edgeq_tokenize(session, &given, &ids, &encoded.count), session);
  encoded.ids = reserve(encoded.count, sizeof *ids);
  memcpy(encoded.ids, ids, encoded.count * sizeof *ids);
  return encoded;
}

static bool is_blank(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++) {
    if (strchr(" \t\r\v\f", text[i]) == NULL || text[i] == '\0') return false;
  }
  return true;
}

/* One text a line; blank lines are skipped, but counted. */
static Texts read_lines(edgeq_session *session, const char *path) {
  static const char MARK[] = "\xEF\xBB\xBF"; /* some editors put it first */
  InputFile file = read_file(path);
  const char *at = file.data, *end = file.data + file.size;
  size_t lines = 1, line = 0;
  if (file.size >= 3 && memcmp(at, MARK, 3) == 0) at += 3;
  for (size_t i = 0; i < file.size; i++) lines += file.data[i] == '\n';
  Texts texts = {reserve(lines, sizeof *texts.items), 0};
  while (at < end) {
    const char *stop = memchr(at, '\n', (size_t)(end - at)), *next = stop == NULL ? end : stop + 1;
    if (stop == NULL) stop = end;
    line++;
    while (stop > at && stop[-1] == '\r') stop--;
    while (at < stop && *at == '\r') at++;
    if (!is_blank(at, (size_t)(stop - at))) texts.items[texts.count++] = encode(session, at, (size_t)(stop - at), line);
    at = next;
  }
  if (texts.count == 0) stop(EXIT_USAGE, "%s holds no text: one text a line is expected", path);
  return texts;
}

static Texts read_one(edgeq_session *session, const char *text) {
  size_t size = strlen(text);
  Texts texts = {reserve(1, sizeof *texts.items), 1};
  if (is_blank(text, size)) stop(EXIT_USAGE, "the text is empty; give at least one word");
  texts.items[0] = encode(session, text, size, 1);
  return texts;
}

Texts read_texts(edgeq_session *session, const Options *options) {
  if (options->ids != NULL) return read_lines_of_ids(options->ids);
  if (options->file != NULL) return read_lines(session, options->file);
  if (options->text != NULL) return read_one(session, options->text);
  return (Texts){NULL, 0};
}

edgeq_text *given_texts(const Texts *texts) {
  edgeq_text *given = reserve(texts->count, sizeof *given);
  for (size_t i = 0; i < texts->count; i++) {
    const Text *text = &texts->items[i];
    given[i] = (edgeq_text){.ids = text->ids, .id_count = text->count, .name = text->name};
  }
  return given;
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
