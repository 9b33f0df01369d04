/* What is to be run: texts or pairs of them, or lines of token ids, with what their file says of them besides. */
#ifndef EDGEQ_TEXTS_H
#define EDGEQ_TEXTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgeq.h"

/* A text; one without characters is a blank line, which keeps its place. */
typedef struct {
  const char *text;   /* NULL where there are token ids only */
  size_t size;
  const char *second; /* of a pair; NULL if there is none */
  size_t second_size;
  int64_t *ids;       /* of a line of ids, or what the text was turned into */
  size_t count;
  size_t line;        /* counted from 1 */
  char *name;         /* what sentences call it */
  const char *id;     /* JSON of its id; NULL if it has none */
  size_t id_size;
  const char *fields; /* JSON of its other fields, without the braces; NULL if it has none */
  size_t fields_size;
} Text;

typedef struct {
  Text *items;
  size_t count;
} Texts;

/* Turns texts into ids, for what runs on ids: --generate, --raw, --repeat. Blank lines are left out. */
void encode_texts(edgeq_session *session, Texts *texts);

/* As the library takes them: ids. */
edgeq_text *given_texts(const Texts *texts);

bool is_blank(const char *text, size_t size);

/* A new text at the end; its name is "line N of the KIND". */
Text *add_text(Texts *texts, size_t line, const char *kind);

#endif
