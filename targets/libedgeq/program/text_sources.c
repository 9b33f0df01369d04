#include "text_sources.h"

#include <string.h>

#include "input_file.h"
#include "stop.h"
#include "table_files.h"

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

static void read_lines_of_ids(Texts *texts, const char *path) {
  InputFile file = read_file(path);
  const char *at = file.data, *end = file.data + file.size;
  while (at < end) {
    const char *stop = memchr(at, '\n', (size_t)(end - at));
    if (stop == NULL) stop = end;
    Text *text = add_text(texts, texts->count + 1, "ids");
    text->ids = read_ids(at, stop, &text->count, path, text->line);
    at = stop < end ? stop + 1 : end;
  }
  if (texts->count == 0) stop(EXIT_USAGE, "%s is empty: give one line of token ids per text", path);
}

/* Cuts a line at its only tab. */
static void split_pair(Text *text, const char *path) {
  const char *tab = memchr(text->text, '\t', text->size), *end = text->text + text->size;
  if (tab == NULL || memchr(tab + 1, '\t', (size_t)(end - tab - 1)) != NULL) {
    stop(EXIT_USAGE, "%s, line %zu: expected two texts and one tab between them", path, text->line);
  }
  text->second = tab + 1;
  text->second_size = (size_t)(end - tab - 1);
  text->size = (size_t)(tab - text->text);
}

/* One text a line; a blank line keeps its place. */
static void read_lines(Texts *texts, const char *path, bool of_pairs) {
  InputFile file = read_text_file(path);
  const char *at = file.data, *end = file.data + file.size;
  size_t line = 0;
  bool any = false;
  while (at < end) {
    const char *stop = memchr(at, '\n', (size_t)(end - at)), *next = stop == NULL ? end : stop + 1;
    if (stop == NULL) stop = end;
    while (stop > at && stop[-1] == '\r') stop--;
    while (at < stop && *at == '\r') at++;
    Text *text = add_text(texts, ++line, "texts");
    text->text = at;
    text->size = is_blank(at, (size_t)(stop - at)) ? 0 : (size_t)(stop - at);
    if (of_pairs && text->size > 0) split_pair(text, path);
    any |= text->size > 0;
    at = next;
  }
  if (!any) stop(EXIT_USAGE, "%s holds no text; give one text per line", path);
}

static Text *add_argument(Texts *texts, const char *text) {
  Text *added = add_text(texts, texts->count + 1, "texts");
  added->text = text;
  added->size = strlen(text);
  if (is_blank(text, added->size)) stop(EXIT_USAGE, "the text is empty; give at least one word");
  return added;
}

static void add_pair(Texts *texts, const char *first, const char *second) {
  Text *pair = add_argument(texts, first);
  pair->second = second;
  pair->second_size = strlen(second);
  if (is_blank(second, pair->second_size)) stop(EXIT_USAGE, "the second text is empty; give at least one word");
}

Texts read_texts(const Options *options) {
  Texts texts = {NULL, 0};
  if (options->ids != NULL) read_lines_of_ids(&texts, options->ids);
  if (options->text != NULL) add_argument(&texts, options->text);
  if (options->file != NULL) read_lines(&texts, options->file, false);
  if (options->documents != NULL) read_lines(&texts, options->documents, false);
  if (options->pairs != NULL) read_lines(&texts, options->pairs, true);
  if (options->jsonl != NULL) read_json_lines(&texts, options->jsonl, options->column);
  if (options->csv != NULL) read_csv(&texts, options->csv, options->column);
  if (options->pair[0] != NULL) add_pair(&texts, options->pair[0], options->pair[1]);
  if (options->question != NULL) add_pair(&texts, options->question, options->context);
  return texts;
}
