#include "splitters.h"

#include <string.h>

#include "pattern.h"
#include "utf8.h"

size_t span_count(const Pieces *pieces) { return pieces->spans.size / sizeof(Span); }

const Span *spans_of(const Pieces *pieces) { return (const Span *)(const void *)pieces->spans.data; }

void release_pieces(Pieces *pieces) {
  traced_release(&pieces->text);
  buffer_release(&pieces->spans);
}

static void add_span(Buffer *spans, size_t start, size_t end) {
  Span span = {start, end};
  if (start < end) buffer_add(spans, &span, sizeof span);
}

static Pieces pieces_like(const Pieces *like) {
  return (Pieces){traced_like(&like->text), {.memory = like->text.text.memory}};
}

/* Cuts the spans at the matches of a pattern; their text stays. */
static void cut_at_matches(const TokenizerTable *table, const Step *step, Pieces *pieces) {
  const Span *spans = spans_of(pieces);
  Memory *memory = pieces->spans.memory;
  Buffer out = {.memory = memory};
  bool keeps_matches = step->b == ISOLATED || step->c != 0, keeps_others = step->b == ISOLATED || step->c == 0;
  for (size_t i = 0; i < span_count(pieces); i++) {
    const char *text = pieces->text.text.data + spans[i].start;
    size_t size = spans[i].end - spans[i].start, from = 0, start = 0, end = 0;
    while (pattern_find(memory, table, step->a, text, size, from, &start, &end)) {
      if (keeps_others) add_span(&out, spans[i].start + from, spans[i].start + start);
      if (keeps_matches) add_span(&out, spans[i].start + start, spans[i].start + end);
      from = end;
    }
    if (keeps_others) add_span(&out, spans[i].start + from, spans[i].end);
  }
  buffer_release(&pieces->spans);
  pieces->spans = out;
}

/* Spans with a space in front. */
static Pieces with_spaces(const Pieces *pieces) {
  const Span *spans = spans_of(pieces);
  Pieces spaced = pieces_like(pieces);
  for (size_t i = 0; i < span_count(pieces); i++) {
    size_t start = spaced.text.text.size, from = spans[i].start;
    if (pieces->text.text.data[from] != ' ') traced_add(&spaced.text, " ", 1, place_of(&pieces->text, from));
    traced_copy(&spaced.text, &pieces->text, from, spans[i].end);
    add_span(&spaced.spans, start, spaced.text.text.size);
  }
  return spaced;
}

/* Spans with a mark for every space; PREPENDS puts one in front, CUTS begins a span at each. */
static Pieces with_marks(const TokenizerTable *table, const Step *step, const Pieces *pieces) {
  const Span *spans = spans_of(pieces);
  const char *mark = table->strings + step->a;
  Pieces marked = pieces_like(pieces);
  const Buffer *made = &marked.text.text;
  for (size_t i = 0; i < span_count(pieces); i++) {
    const char *text = pieces->text.text.data;
    size_t last = spans[i].end, start = made->size, first = spans[i].start;
    bool begins = text[first] == ' ' || (last - first >= step->b && memcmp(text + first, mark, step->b) == 0);
    bool prepends = (step->c & PREPENDS) != 0 && ((step->c & AT_START) == 0 || (i == 0 && pieces->text.begins));
    if (prepends && !begins) traced_add(&marked.text, mark, step->b, place_of(&pieces->text, first));
    for (size_t at = first, end; at < last; at = end) {
      end = character_after(text, at);
      bool is_mark = text[at] == ' ' || (last - at >= step->b && memcmp(text + at, mark, step->b) == 0);
      if (is_mark && (step->c & CUTS)) {
        add_span(&marked.spans, start, made->size);
        start = made->size;
      }
      if (text[at] == ' ') {
        traced_add(&marked.text, mark, step->b, place_of(&pieces->text, at));
      } else {
        traced_copy(&marked.text, &pieces->text, at, end);
      }
    }
    add_span(&marked.spans, start, made->size);
  }
  return marked;
}

Pieces split_text(const TokenizerTable *table, const Traced *text, size_t start, size_t end) {
  Pieces pieces = {traced_like(text), {.memory = text->text.memory}};
  pieces.text.begins = text->begins && start == 0;
  traced_copy(&pieces.text, text, start, end);
  add_span(&pieces.spans, 0, end - start);
  for (size_t i = 0; i < table->splitter_count; i++) {
    const Step *step = &table->splitters[i];
    if (step->kind == SPLIT) {
      cut_at_matches(table, step, &pieces);
      continue;
    }
    Pieces next = step->kind == PREFIX_SPACE ? with_spaces(&pieces) : with_marks(table, step, &pieces);
    release_pieces(&pieces);
    pieces = next;
  }
  return pieces;
}
