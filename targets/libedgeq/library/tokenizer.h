/* Texts to token ids and back, with the bundle's own tokenizer, as the package tokenizers does it. */
#ifndef EDGEQ_TOKENIZER_H
#define EDGEQ_TOKENIZER_H

#include "token_list.h"
#include "tokenizer_table.h"

/* Appends the tokens of a text in valid UTF-8, without those that the model wants around them. */
void tokenizer_encode(const TokenizerTable *table, const char *text, size_t size, TokenList *tokens);

/* Text from tokens that come one by one. */
typedef struct {
  const TokenizerTable *table; /* or NULL for bytes that are held already, a part of a text */
  Buffer held; /* the beginning of a character */
  bool has_begun;
} TextOutput;

/* Appends to `text` the whole characters that are certain with the next token; special tokens give none. */
void text_output_add(TextOutput *output, int64_t token, Buffer *text);

/* Appends the rest, and forgets it. Bytes that are no character become U+FFFD, here and above. */
void text_output_finish(TextOutput *output, Buffer *text);

#endif
