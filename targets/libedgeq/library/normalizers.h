/* What happens to a text before it is cut into words. */
#ifndef EDGEQ_NORMALIZERS_H
#define EDGEQ_NORMALIZERS_H

#include "tokenizer_table.h"
#include "traced.h"

/* Takes the steps of the table's normalizers on a text, one after the other. */
void normalize(const TokenizerTable *table, Traced *text);

#endif
