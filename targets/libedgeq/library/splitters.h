/* A normalized text to words. */
#ifndef EDGEQ_SPLITTERS_H
#define EDGEQ_SPLITTERS_H

#include "tokenizer_table.h"
#include "traced.h"

/* A part of a text that becomes tokens for itself. */
typedef struct {
  size_t start, end;
} Span;

typedef struct {
  Traced text;
  Buffer spans; /* Span each */
} Pieces;

/* Takes the steps of the table's splitters on text[start..end). */
Pieces split_text(const TokenizerTable *table, const Traced *text, size_t start, size_t end);

size_t span_count(const Pieces *pieces);
const Span *spans_of(const Pieces *pieces);

void release_pieces(Pieces *pieces);

#endif
