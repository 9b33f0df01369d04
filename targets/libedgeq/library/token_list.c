#include "token_list.h"

TokenList token_list(Memory *memory, bool is_traced) {
  return (TokenList){{.memory = memory}, {.memory = memory}, is_traced, 0};
}

void add_origin(TokenList *list, uint32_t token, const TokenOrigin *origin) {
  int64_t id = token;
  buffer_add(&list->ids, &id, sizeof id);
  if (list->is_traced) buffer_add(&list->origins, origin, sizeof *origin);
}

void add_token(TokenList *list, const WordText *word, uint32_t token, size_t start, size_t end) {
  TokenOrigin origin = {.word = list->words};
  if (list->is_traced && start < end && end <= word->size) {
    origin.place = (Place){word->places[start].start, word->places[end - 1].end};
    for (size_t at = start; at < end && word->text[at] == ' '; at++) origin.leading++;
    for (size_t at = end; at > start && word->text[at - 1] == ' '; at--) origin.trailing++;
  }
  add_origin(list, token, &origin);
}

size_t token_count(const TokenList *list) { return list->ids.size / sizeof(int64_t); }

void keep_tokens(TokenList *list, size_t count) {
  list->ids.size = count * sizeof(int64_t);
  if (list->is_traced) list->origins.size = count * sizeof(TokenOrigin);
}
