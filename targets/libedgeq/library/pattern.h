/* Regular expressions: programs of tokenizer.bin, run by backtracking, on valid UTF-8. */
#ifndef EDGEQ_PATTERN_H
#define EDGEQ_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "memory.h"
#include "tokenizer_table.h"

/* Operations; operands follow in the next words of the code:
 * OP_CHARACTER character; OP_SET set; OP_JUMP address; OP_TRY address, address if that fails; OP_LOOK kind (1: must
 * not match, 2: before this place), characters to go back, address after the body; OP_BOUNDARY set of word
 * characters, 1 where there must be none. */
enum {
  OP_MATCH, OP_CHARACTER, OP_SET, OP_JUMP, OP_TRY, OP_LOOK, OP_LINE_START, OP_LINE_END, OP_BOUNDARY, OP_TEXT_START,
  OP_TEXT_END, OPERATIONS
};

/* Whether every operation of the table's code is known and every operand in range. */
bool pattern_fits(Memory *memory, const TokenizerTable *table);

/* The first match of the pattern at `program` in text[from..size): its start and end. Fails if the search takes
 * unreasonably long. */
bool pattern_find(Memory *memory, const TokenizerTable *table, size_t program, const char *text, size_t size, size_t from,
                  size_t *start, size_t *end);

#endif
