/* The normalizer of SentencePiece: a map from pieces of text to texts. */
#ifndef EDGEQ_CHARSMAP_H
#define EDGEQ_CHARSMAP_H

#include <stddef.h>

#include "buffer.h"
#include "tokenizer_table.h"

/* Appends what the map makes of a text: of grapheme clusters shorter than six bytes, or else of characters, as the package
 * tokenizers does it. */
void map_clusters(const TokenizerTable *table, const char *text, size_t size, Buffer *out);

#endif
