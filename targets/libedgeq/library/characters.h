/* What sets of characters hold, and what normalizing makes of a character. */
#ifndef EDGEQ_CHARACTERS_H
#define EDGEQ_CHARACTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tokenizer_table.h"
#include "traced.h"

bool set_has(const TokenizerTable *table, uint32_t set, uint32_t character);

/* What becomes of a character in lower case, NULL if it stays. */
const CharacterMapping *lower_of(const TokenizerTable *table, uint32_t character);

/* Where a mark comes in the canonical order of marks; 0 for characters that are none. */
uint32_t order_of(const TokenizerTable *table, uint32_t character);

/* What becomes of a character in a step, NULL if it stays. */
const CharacterMapping *mapping_of(const TokenizerTable *table, const Step *step, uint32_t character);

/* Writes the two or three parts of a Hangul syllable; returns how many. */
size_t hangul_parts(uint32_t syllable, uint32_t parts[3]);

/* Appends what a MAP step makes of a text. */
void map_characters(const TokenizerTable *table, const Step *step, const Traced *text, Traced *out);

#endif
