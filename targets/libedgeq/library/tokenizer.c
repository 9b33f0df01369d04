#include "tokenizer.h"

#include <string.h>

#include "characters.h"
#include "charsmap.h"
#include "pattern.h"
#include "utf8.h"
#include "words.h"

/* Parts of a text that become tokens each for itself. */
typedef struct {
  size_t start, end;
} Span;

typedef struct {
  Buffer text, spans;
} Pieces;

/* A text between added tokens. */
typedef void (*SectionUse)(const TokenizerTable *table, const char *text, size_t size, Buffer *ids);

static void add_span(Buffer *spans, size_t start, size_t end) {
  Span span = {start, end};
  if (start < end) buffer_add(spans, &span, sizeof span);
}

static void replace(const TokenizerTable *table, const Step *step, const char *text, size_t size, Buffer *out) {
  size_t from = 0, start = 0, end = 0;
  while (pattern_find(out->memory, table, step->a, text, size, from, &start, &end)) {
    buffer_add(out, text + from, start - from);
    buffer_add(out, table->strings + step->b, step->c);
    from = end;
  }
  if (size > from) buffer_add(out, text + from, size - from);
}

static void split(const TokenizerTable *table, const Step *step, const Pieces *pieces, Buffer *out) {
  const Span *spans = (const Span *)(const void *)pieces->spans.data;
  bool keeps_matches = step->b == ISOLATED || step->c != 0, keeps_others = step->b == ISOLATED || step->c == 0;
  for (size_t i = 0; i < pieces->spans.size / sizeof *spans; i++) {
    const char *text = pieces->text.data + spans[i].start;
    size_t size = spans[i].end - spans[i].start, from = 0, start = 0, end = 0;
    while (pattern_find(out->memory, table, step->a, text, size, from, &start, &end)) {
      if (keeps_others) add_span(out, spans[i].start + from, spans[i].start + start);
      if (keeps_matches) add_span(out, spans[i].start + start, spans[i].start + end);
      from = end;
    }
    if (keeps_others) add_span(out, spans[i].start + from, spans[i].end);
  }
}

static Pieces with_spaces(const Pieces *pieces) {
  const Span *spans = (const Span *)(const void *)pieces->spans.data;
  Memory *memory = pieces->text.memory;
  Pieces spaced = {{.memory = memory}, {.memory = memory}};
  for (size_t i = 0; i < pieces->spans.size / sizeof *spans; i++) {
    size_t start = spaced.text.size;
    if (pieces->text.data[spans[i].start] != ' ') buffer_add(&spaced.text, " ", 1);
    buffer_add(&spaced.text, pieces->text.data + spans[i].start, spans[i].end - spans[i].start);
    add_span(&spaced.spans, start, spaced.text.size);
  }
  return spaced;
}

/* Spans with a mark for every space; PREPENDS puts one in front, CUTS begins a span at each. */
static Pieces with_marks(const TokenizerTable *table, const Step *step, const Pieces *pieces) {
  const Span *spans = (const Span *)(const void *)pieces->spans.data;
  const char *mark = table->strings + step->a;
  Memory *memory = pieces->text.memory;
  Pieces marked = {{.memory = memory}, {.memory = memory}};
  for (size_t i = 0; i < pieces->spans.size / sizeof *spans; i++) {
    const char *text = pieces->text.data + spans[i].start;
    size_t size = spans[i].end - spans[i].start, start = marked.text.size;
    bool begins = text[0] == ' ' || (size >= step->b && memcmp(text, mark, step->b) == 0);
    if ((step->c & PREPENDS) && !begins) buffer_add(&marked.text, mark, step->b);
    for (size_t at = 0, end; at < size; at = end) {
      end = character_after(text, at);
      bool is_mark = text[at] == ' ' || (size - at >= step->b && memcmp(text + at, mark, step->b) == 0);
      if (is_mark && (step->c & CUTS)) {
        add_span(&marked.spans, start, marked.text.size);
        start = marked.text.size;
      }
      buffer_add(&marked.text, text[at] == ' ' ? mark : text + at, text[at] == ' ' ? step->b : end - at);
    }
    add_span(&marked.spans, start, marked.text.size);
  }
  return marked;
}

static void release_pieces(Pieces *pieces) {
  buffer_release(&pieces->text);
  buffer_release(&pieces->spans);
}

/* A normalized text without added tokens. */
static void add_words(const TokenizerTable *table, const char *text, size_t size, Buffer *ids) {
  Pieces pieces = {{.memory = ids->memory}, {.memory = ids->memory}};
  buffer_add(&pieces.text, text, size);
  add_span(&pieces.spans, 0, size);
  for (size_t i = 0; i < table->splitter_count; i++) {
    const Step *step = &table->splitters[i];
    Pieces next = {{.memory = ids->memory}, {.memory = ids->memory}};
    if (step->kind == PREFIX_SPACE) {
      next = with_spaces(&pieces);
    } else if (step->kind == METASPACE) {
      next = with_marks(table, step, &pieces);
    } else {
      buffer_add(&next.text, pieces.text.data, pieces.text.size);
      split(table, step, &pieces, &next.spans);
    }
    release_pieces(&pieces);
    pieces = next;
  }
  const Span *spans = (const Span *)(const void *)pieces.spans.data;
  for (size_t i = 0; i < pieces.spans.size / sizeof *spans; i++) {
    const char *word = pieces.text.data + spans[i].start;
    size_t length = spans[i].end - spans[i].start;
    if (table->settings->model == BYTE_PAIRS) word_to_byte_pairs(table, word, length, ids);
    if (table->settings->model == WORD_PIECES) word_to_pieces(table, word, length, ids);
    if (table->settings->model == WHOLE_WORDS) word_to_token(table, word, length, ids);
    if (table->settings->model == UNIGRAM) word_to_unigram(table, word, length, ids);
    if (table->settings->model == CHARACTER_PAIRS) word_to_character_pairs(table, word, length, ids);
  }
  release_pieces(&pieces);
}

/* The longest added token that starts at a place, of those that are looked for in (un)normalized text. */
static const AddedToken *added_at(const TokenizerTable *table, const char *text, size_t left, uint32_t normalized) {
  const AddedToken *longest = NULL;
  for (size_t i = 0; i < table->added_count; i++) {
    const AddedToken *added = &table->added[i];
    bool fits = (added->flags & NORMALIZED) == normalized && added->text.size <= left &&
                memcmp(table->strings + added->text.place, text, added->text.size) == 0;
    if (fits && (longest == NULL || added->text.size > longest->text.size)) longest = added;
  }
  return longest;
}

static bool touches_word(const TokenizerTable *table, const char *text, size_t size, size_t start, size_t end) {
  uint32_t words = table->settings->word_set;
  return (start > 0 && set_has(table, words, character_at(text, character_before(text, start)))) ||
         (end < size && set_has(table, words, character_at(text, end)));
}

/* Finds added tokens in a text, appends them to `ids`, and gives what lies between them to `use`. */
static void cut_at_added(const TokenizerTable *table, const char *text, size_t size, uint32_t normalized,
                         SectionUse use, Buffer *ids) {
  uint32_t spaces = table->settings->space_set;
  size_t done = 0;
  for (size_t at = 0; at < size;) {
    const AddedToken *added = added_at(table, text + at, size - at, normalized);
    if (added == NULL) {
      at = character_after(text, at);
      continue;
    }
    size_t start = at, end = at + added->text.size;
    at = end;
    if ((added->flags & SINGLE_WORD) && touches_word(table, text, size, start, end)) continue;
    while ((added->flags & LEFT) && start > done &&
           set_has(table, spaces, character_at(text, character_before(text, start)))) {
      start = character_before(text, start);
    }
    while ((added->flags & RIGHT) && end < size && set_has(table, spaces, character_at(text, end))) {
      end = character_after(text, end);
    }
    if (start > done) use(table, text + done, start - done, ids);
    add_id(ids, added->token);
    done = end;
    if (at < end) at = end;
  }
  if (done < size) use(table, text + done, size - done, ids);
}

static void strip(const TokenizerTable *table, const Step *step, const char *text, size_t size, Buffer *out) {
  size_t start = 0, end = size;
  while (step->a != 0 && start < end && set_has(table, step->c, character_at(text, start))) {
    start = character_after(text, start);
  }
  while (step->b != 0 && end > start && set_has(table, step->c, character_at(text, character_before(text, end)))) {
    end = character_before(text, end);
  }
  if (end > start) buffer_add(out, text + start, end - start);
}

static void normalize(const TokenizerTable *table, const Step *step, const char *text, size_t size, Buffer *out) {
  if (step->kind == MAP) map_characters(table, step, text, size, out);
  if (step->kind == REPLACE) replace(table, step, text, size, out);
  if (step->kind == CHARSMAP) map_clusters(table, text, size, out);
  if (step->kind == STRIP) strip(table, step, text, size, out);
  if (step->kind == PREPEND) {
    buffer_add(out, table->strings + step->a, step->b);
    buffer_add(out, text, size);
  }
}

static void add_section(const TokenizerTable *table, const char *text, size_t size, Buffer *ids) {
  Buffer normal = {.memory = ids->memory};
  buffer_add(&normal, text, size);
  for (size_t i = 0; i < table->normalizer_count; i++) {
    const Step *step = &table->normalizers[i];
    Buffer next = {.memory = ids->memory};
    if (normal.size > 0) normalize(table, step, normal.data, normal.size, &next);
    buffer_release(&normal);
    normal = next;
  }
  if (normal.size > 0) cut_at_added(table, normal.data, normal.size, NORMALIZED, add_words, ids);
  buffer_release(&normal);
}

void tokenizer_encode(const TokenizerTable *table, const char *text, size_t size, Buffer *ids) {
  for (size_t i = 0; i < table->prefix_count; i++) add_id(ids, table->prefix[i]);
  cut_at_added(table, text, size, 0, add_section, ids);
  for (size_t i = 0; i < table->suffix_count; i++) add_id(ids, table->suffix[i]);
}
