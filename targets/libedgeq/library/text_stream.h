/* The text of generated tokens while they come: whole characters only, and nothing that a stop text may still cut off. */
#ifndef EDGEQ_TEXT_STREAM_H
#define EDGEQ_TEXT_STREAM_H

#include "tokenizer.h"

/* A text that ends others. */
typedef struct {
  const char *text;
  size_t size;
} Stop;

typedef struct {
  TextOutput output;
  const Stop *stops;
  size_t stop_count;
  Buffer text;
  size_t certain; /* bytes of `text` that no stop text can cut off any more */
  bool stopped;   /* `text` ends where a stop text began */
} TextStream;

/* Takes the next token. */
void text_stream_add(TextStream *stream, int64_t token);

/* What was held back becomes certain: an incomplete character, the beginning of a stop text. */
void text_stream_finish(TextStream *stream);

#endif
