/* Characters to their parts and together again: Unicode's normal forms C and KC. */
#ifndef EDGEQ_COMPOSING_H
#define EDGEQ_COMPOSING_H

#include "tokenizer_table.h"
#include "traced.h"

/* Appends what a COMPOSE step makes of a text. */
void compose_characters(const TokenizerTable *table, const Step *step, const Traced *text, Traced *out);

#endif
