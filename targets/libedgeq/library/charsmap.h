/* The normalizer of SentencePiece: a map from pieces of text to texts. */
#ifndef EDGEQ_CHARSMAP_H
#define EDGEQ_CHARSMAP_H

#include "tokenizer_table.h"
#include "traced.h"

/* Appends what the map makes of a text: of grapheme clusters shorter than six bytes, or else of characters, as the package
 * tokenizers does it. */
void map_clusters(const TokenizerTable *table, const Traced *text, Traced *out);

/* The same of the longest piece at each place, as the package sentencepiece does it. */
void map_longest(const TokenizerTable *table, const Traced *text, Traced *out);

#endif
