/* What is to be run, as token ids: lines of ids, or texts through the bundle's tokenizer. */
#ifndef EDGEQ_TEXTS_H
#define EDGEQ_TEXTS_H

#include "bundle.h"
#include "options.h"
#include "tokenizer_table.h"

/* Token ids of one text. */
typedef struct {
  int64_t *ids;
  size_t count;
  size_t line; /* counted from 1 */
} Text;

typedef struct {
  Text *items;
  size_t count;
  const char *kind;        /* what messages call them: "ids" or "texts" */
  TokenizerTable tokenizer; /* what `ids` came from, and what turns them back; unless they were given as ids */
} Texts;

/* The texts that the options name, with --ids, --text or --file; none for other jobs. */
Texts read_texts(const Bundle *bundle, const Options *options);

/* Prints token ids, and does nothing else with them. */
void print_texts(const Texts *texts, bool json);

#endif
