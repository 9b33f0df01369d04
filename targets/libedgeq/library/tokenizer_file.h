/* Reading tokenizer.bin, whose layout tokenizer_table.h describes. */
#ifndef EDGEQ_TOKENIZER_FILE_H
#define EDGEQ_TOKENIZER_FILE_H

#include "memory.h"
#include "platform.h"
#include "tokenizer_table.h"

/* Reads the table and checks that nothing in it points outside; `path` names the file. Fails if it does. If it holds a
 * reason instead, `*reason` gets it and the table is empty. */
TokenizerTable read_tokenizer_table(Memory *memory, Mapping file, const char *path, const char **reason);

#endif
