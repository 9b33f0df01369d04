/* Names of tokens to text, as the package tokenizers and transformers do it. */
#ifndef EDGEQ_TOKEN_TEXTS_H
#define EDGEQ_TOKEN_TEXTS_H

#include <stdbool.h>

#include "buffer.h"
#include "tokenizer_table.h"

/* A name, or another text in its place. */
typedef struct {
  const char *text;
  size_t size;
} TokenText;

/* Fails unless the bundle has the names of tokens and knows how they become text. */
void check_names_known(const Memory *memory, const TokenizerTable *table);

/* The name of a token; empty if there is none with this number. */
TokenText token_name(const TokenizerTable *table, int64_t token);

bool is_special(const TokenizerTable *table, int64_t token);

/* Appends the text that names make together. */
void join_names(const TokenizerTable *table, const TokenText *names, size_t count, Buffer *text);

/* Appends the text of tokens, without special ones if `skips_special`; spaces before punctuation go if the tokenizer says
 * so. */
void join_tokens(const TokenizerTable *table, const int64_t *ids, size_t count, bool skips_special, Buffer *text);

#endif
