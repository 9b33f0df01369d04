#include "texts.h"

#include <stdio.h>
#include <string.h>

#include "stop.h"

bool is_blank(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++) {
    if (strchr(" \t\r\n\v\f", text[i]) == NULL || text[i] == '\0') return false;
  }
  return true;
}

Text *add_text(Texts *texts, size_t line, const char *kind) {
  /* Grown by halves, when the count is a power of two. */
  size_t count = texts->count;
  if ((count & (count - 1)) == 0) texts->items = grow(texts->items, (count > 0 ? 2 * count : 1) * sizeof *texts->items);
  Text *text = &texts->items[texts->count++];
  *text = (Text){.line = line, .name = reserve(64, 1)};
  snprintf(text->name, 64, "line %zu of the %s", line, kind);
  return text;
}

void encode_texts(edgeq_session *session, Texts *texts) {
  size_t kept = 0;
  for (size_t i = 0; i < texts->count; i++) {
    Text text = texts->items[i];
    if (text.text != NULL) {
      const edgeq_text given = {.text = text.text, .size = text.size, .name = text.name};
      const int64_t *ids = NULL;
      if (text.size == 0) continue;
      if (text.second != NULL) stop(EXIT_USAGE, "%s is a pair; --generate, --raw and --repeat take single texts", text.name);
      check(edgeq_tokenize(session, &given, &ids, &text.count), session);
      text.ids = reserve(text.count, sizeof *ids);
      memcpy(text.ids, ids, text.count * sizeof *ids);
    }
    texts->items[kept++] = text;
  }
  texts->count = kept;
}

edgeq_text *given_texts(const Texts *texts) {
  edgeq_text *given = reserve(texts->count, sizeof *given);
  for (size_t i = 0; i < texts->count; i++) {
    const Text *text = &texts->items[i];
    given[i] = (edgeq_text){.ids = text->ids, .id_count = text->count, .name = text->name};
  }
  return given;
}
