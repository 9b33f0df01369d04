/* Texts, or pairs of them, to the rows of tokens that a model reads: special tokens around them, what is too long cut off
 * or put into further rows, and where each token comes from. As the package tokenizers does it. */
#ifndef EDGEQ_ENCODING_H
#define EDGEQ_ENCODING_H

#include <stdbool.h>

#include "edgeq.h"
#include "memory.h"
#include "tokenizer_table.h"

typedef struct {
  size_t longest;     /* most tokens of a row; 0 if nothing limits it */
  int32_t truncation; /* EDGEQ_LONGEST_FIRST and so on: which text of a pair loses tokens */
  bool cuts_left;     /* at the beginnings of texts */
  bool keeps_windows; /* what is cut off becomes further rows */
  size_t overlap;     /* tokens that such a row has in common with the one before */
  bool is_traced;     /* tells where tokens come from */
} Framing;

typedef struct {
  int64_t *ids, *types;
  edgeq_token *tokens; /* NULL unless traced */
  size_t count;
} Row;

typedef struct {
  Row *rows;
  size_t count;
  size_t tokens; /* of the texts with special ones, if nothing were cut off */
  bool is_cut;   /* some of them are in no row */
} Rows;

/* A text in valid UTF-8. */
typedef struct {
  const char *text;
  size_t size;
} TextPart;

/* Rows of one text or two, as long as `memory` lasts; `name` is what sentences call it. */
Rows encode_parts(Memory *memory, const TokenizerTable *table, const TextPart *parts, size_t count, const Framing *how,
                  const char *name);

/* Special tokens of a row of one text or two. */
size_t frame_tokens(const TokenizerTable *table, size_t texts);

#endif
