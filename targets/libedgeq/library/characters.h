/* What sets of characters hold, and what normalizing makes of a character. */
#ifndef EDGEQ_CHARACTERS_H
#define EDGEQ_CHARACTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"
#include "tokenizer_table.h"

bool set_has(const TokenizerTable *table, uint32_t set, uint32_t character);

/* Appends what a MAP step makes of a text. */
void map_characters(const TokenizerTable *table, const Step *step, const char *text, size_t size, Buffer *out);

#endif
