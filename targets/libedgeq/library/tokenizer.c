#include "tokenizer.h"

#include <string.h>

#include "characters.h"
#include "normalizers.h"
#include "splitters.h"
#include "utf8.h"
#include "words.h"

/* What becomes of text[start..end) between added tokens. */
typedef void (*SectionUse)(const TokenizerTable *table, const Traced *text, size_t start, size_t end, TokenList *tokens);

/* A normalized text without added tokens. */
static void add_words(const TokenizerTable *table, const Traced *text, size_t start, size_t end, TokenList *tokens) {
  Pieces pieces = split_text(table, text, start, end);
  const Span *spans = spans_of(&pieces);
  const Place *places = places_of(&pieces.text);
  for (size_t i = 0; i < span_count(&pieces); i++) {
    const WordText word = {pieces.text.text.data + spans[i].start, spans[i].end - spans[i].start,
                           places != NULL ? places + spans[i].start : NULL};
    switch (table->settings->model) {
      case BYTE_PAIRS: word_to_byte_pairs(table, &word, tokens); break;
      case WORD_PIECES: word_to_pieces(table, &word, tokens); break;
      case WHOLE_WORDS: word_to_token(table, &word, tokens); break;
      case UNIGRAM:
      case SENTENCE_PIECES: word_to_unigram(table, &word, tokens); break;
      default: word_to_character_pairs(table, &word, tokens);
    }
    tokens->words++;
  }
  release_pieces(&pieces);
}

/* Bytes of an added token at the beginning of a text; 0 if it is not there. */
static size_t size_at(const TokenizerTable *table, const AddedToken *added, const char *text, size_t left) {
  const char *own = table->strings + added->text.place;
  size_t size = added->text.size, half = size / 2;
  if ((added->flags & ENCLOSES) == 0) return size <= left && memcmp(own, text, size) == 0 ? size : 0;
  if (half > left || memcmp(own, text, half) != 0) return 0;
  for (size_t at = half; at + half <= left; at++) {
    if (memcmp(own + half, text + at, half) == 0) return at + half;
  }
  return 0;
}

/* The longest added token that starts at a place, of those that are looked for in (un)normalized text, and there; the
 * first of several. */
static const AddedToken *added_at(const TokenizerTable *table, const char *text, size_t left, bool begins,
                                  uint32_t normalized, size_t *size) {
  const AddedToken *longest = NULL;
  *size = 0;
  for (size_t i = 0; i < table->added_count; i++) {
    const AddedToken *added = &table->added[i];
    if ((added->flags & NORMALIZED) != normalized || (!begins && (added->flags & BEGINS))) continue;
    size_t found = size_at(table, added, text, left);
    if (found <= *size) continue;
    longest = added;
    *size = found;
  }
  return longest;
}

static bool touches_word(const TokenizerTable *table, const char *text, size_t size, size_t start, size_t end) {
  uint32_t words = table->settings->word_set;
  return (start > 0 && set_has(table, words, character_at(text, character_before(text, start)))) ||
         (end < size && set_has(table, words, character_at(text, end)));
}

/* An added token is a word of its own; space that it takes counts as space at its ends. */
static void add_added(const TokenizerTable *table, const Traced *text, size_t start, size_t end, uint32_t token,
                      TokenList *tokens) {
  TokenOrigin origin = {.word = tokens->words++};
  const char *data = text->text.data;
  if (tokens->is_traced) {
    origin.place = (Place){place_of(text, start).start, place_of(text, end - 1).end};
    uint32_t spaces = table->settings->space_set;
    for (size_t at = start; at < end && set_has(table, spaces, character_at(data, at)); at = character_after(data, at)) {
      origin.leading++;
    }
    for (size_t at = end; at > start && set_has(table, spaces, character_at(data, character_before(data, at)));
         at = character_before(data, at)) {
      origin.trailing++;
    }
  }
  add_origin(tokens, token, &origin);
}

/* Finds added tokens in a text, appends them, and gives what lies between them to `use`. */
static void cut_at_added(const TokenizerTable *table, const Traced *from, uint32_t normalized, SectionUse use,
                         TokenList *tokens) {
  const char *text = from->text.data;
  size_t size = from->text.size, done = 0, length = 0;
  uint32_t spaces = table->settings->space_set;
  bool may_begin = true;
  for (size_t at = 0; at < size;) {
    const AddedToken *added = added_at(table, text + at, size - at, may_begin && at == done, normalized, &length);
    if (added == NULL) {
      at = character_after(text, at);
      continue;
    }
    size_t start = at, end = at + length;
    at = end;
    if ((added->flags & SINGLE_WORD) && touches_word(table, text, size, start, end)) continue;
    while ((added->flags & LEFT) && start > done &&
           set_has(table, spaces, character_at(text, character_before(text, start)))) {
      start = character_before(text, start);
    }
    while ((added->flags & RIGHT) && end < size && set_has(table, spaces, character_at(text, end))) {
      end = character_after(text, end);
    }
    if (start > done) use(table, from, done, start, tokens);
    add_added(table, from, start, end, added->token, tokens);
    done = end;
    may_begin = (added->flags & BEGINS) == 0;
    if (at < end) at = end;
  }
  if (done < size) use(table, from, done, size, tokens);
}

static void add_section(const TokenizerTable *table, const Traced *text, size_t start, size_t end, TokenList *tokens) {
  Traced normal = traced_like(text);
  normal.begins = text->begins && start == 0;
  traced_copy(&normal, text, start, end);
  normalize(table, &normal);
  if (normal.text.size > 0) cut_at_added(table, &normal, NORMALIZED, add_words, tokens);
  traced_release(&normal);
}

void tokenizer_encode(const TokenizerTable *table, const char *text, size_t size, TokenList *tokens) {
  if (tokens->is_traced && size > UINT32_MAX) {
    fail(tokens->ids.memory, EDGEQ_USAGE, "a text of %zu bytes is too long; split it", size);
  }
  Traced whole = traced_text(tokens->ids.memory, text, size, tokens->is_traced);
  if (size > 0) cut_at_added(table, &whole, 0, add_section, tokens);
  traced_release(&whole);
}
