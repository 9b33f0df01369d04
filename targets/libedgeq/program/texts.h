/* What is to be run: lines of token ids, or texts. */
#ifndef EDGEQ_TEXTS_H
#define EDGEQ_TEXTS_H

#include "edgeq.h"
#include "options.h"

/* Token ids of one text. */
typedef struct {
  int64_t *ids;
  size_t count;
  size_t line; /* counted from 1 */
  char *name;  /* what sentences call it */
} Text;

typedef struct {
  Text *items;
  size_t count;
} Texts;

/* The texts that the options name, with --ids, --text or --file; none for other jobs. */
Texts read_texts(edgeq_session *session, const Options *options);

/* As the library takes them. */
edgeq_text *given_texts(const Texts *texts);

/* Prints token ids, and does nothing else with them. */
void print_texts(const Texts *texts, bool json);

#endif
