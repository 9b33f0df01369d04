#include "words.h"

#include <string.h>

#include "utf8.h"

void add_id(Buffer *ids, uint32_t token) {
  int64_t id = token;
  buffer_add(ids, &id, sizeof id);
}

void add_unknown(const TokenizerTable *table, const char *word, size_t size, Buffer *ids) {
  if (table->settings->unknown == NO_TOKEN) {
    fail(ids->memory, EDGEQ_USAGE, "the bundle's tokenizer has no token for '%.*s'", (int)(size < 100 ? size : 100), word);
  }
  add_id(ids, table->settings->unknown);
}

bool add_fallback_bytes(const TokenizerTable *table, const char *piece, size_t size, Buffer *ids) {
  if (!table->settings->byte_fallback) return false;
  for (size_t i = 0; i < size; i++) {
    if (table->bytes[(unsigned char)piece[i]] == NO_TOKEN) return false;
  }
  for (size_t i = 0; i < size; i++) add_id(ids, table->bytes[(unsigned char)piece[i]]);
  return true;
}

uint32_t find_word(const TokenizerTable *table, const Word *words, size_t count, const char *word, size_t size) {
  size_t low = 0, high = count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    Words text = words[middle].text;
    int order = memcmp(table->strings + text.place, word, text.size < size ? text.size : size);
    if (order == 0) order = (text.size > size) - (text.size < size);
    if (order == 0) return words[middle].token;
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return NO_TOKEN;
}

void word_to_token(const TokenizerTable *table, const char *word, size_t size, Buffer *ids) {
  uint32_t token = find_word(table, table->words, table->word_count, word, size);
  if (token != NO_TOKEN) {
    add_id(ids, token);
  } else {
    add_unknown(table, word, size, ids);
  }
}

void word_to_pieces(const TokenizerTable *table, const char *word, size_t size, Buffer *ids) {
  size_t characters = 0, before = ids->size;
  for (size_t at = 0; at < size; at = character_after(word, at)) characters++;
  for (size_t start = 0; start < size;) {
    uint32_t token = NO_TOKEN;
    size_t end = size;
    for (; characters <= table->settings->longest_word && end > start; end = character_before(word, end)) {
      const Word *words = start == 0 ? table->words : table->inner_words;
      size_t count = start == 0 ? table->word_count : table->inner_word_count;
      token = find_word(table, words, count, word + start, end - start);
      if (token != NO_TOKEN) break;
    }
    if (token == NO_TOKEN) {
      ids->size = before; /* one unknown part makes the whole word unknown */
      add_unknown(table, word, size, ids);
      return;
    }
    add_id(ids, token);
    start = end;
  }
}
