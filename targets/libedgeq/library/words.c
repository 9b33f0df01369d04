#include "words.h"

#include <string.h>

#include "utf8.h"

void add_unknown(const TokenizerTable *table, const WordText *word, size_t start, size_t end, TokenList *tokens) {
  size_t size = end - start;
  if (table->settings->unknown == NO_TOKEN) {
    fail(tokens->ids.memory, EDGEQ_USAGE, "the bundle's tokenizer has no token for '%.*s'",
         (int)(size < 100 ? size : 100), word->text + start);
  }
  add_token(tokens, word, table->settings->unknown, start, end);
}

bool add_fallback_bytes(const TokenizerTable *table, const WordText *word, size_t start, size_t end, TokenList *tokens) {
  if (!table->settings->byte_fallback) return false;
  for (size_t i = start; i < end; i++) {
    if (table->bytes[(unsigned char)word->text[i]] == NO_TOKEN) return false;
  }
  for (size_t i = start; i < end; i++) add_token(tokens, word, table->bytes[(unsigned char)word->text[i]], start, end);
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

void word_to_token(const TokenizerTable *table, const WordText *word, TokenList *tokens) {
  uint32_t token = find_word(table, table->words, table->word_count, word->text, word->size);
  if (token != NO_TOKEN) {
    add_token(tokens, word, token, 0, word->size);
  } else {
    add_unknown(table, word, 0, word->size, tokens);
  }
}

void word_to_pieces(const TokenizerTable *table, const WordText *word, TokenList *tokens) {
  const char *text = word->text;
  size_t characters = 0, before = token_count(tokens);
  for (size_t at = 0; at < word->size; at = character_after(text, at)) characters++;
  for (size_t start = 0; start < word->size;) {
    uint32_t token = NO_TOKEN;
    size_t end = word->size;
    for (; characters <= table->settings->longest_word && end > start; end = character_before(text, end)) {
      const Word *words = start == 0 ? table->words : table->inner_words;
      size_t count = start == 0 ? table->word_count : table->inner_word_count;
      token = find_word(table, words, count, text + start, end - start);
      if (token != NO_TOKEN) break;
    }
    if (token == NO_TOKEN) {
      keep_tokens(tokens, before); /* one unknown part makes the whole word unknown */
      add_unknown(table, word, 0, word->size, tokens);
      return;
    }
    add_token(tokens, word, token, start, end);
    start = end;
  }
}
