/* A batch of growing sequences: tokens in, logits of what follows out. */
#ifndef EDGEQ_DECODER_H
#define EDGEQ_DECODER_H

#include "rules.h"
#include "session.h"

typedef struct {
  edgeq_session *session;
  size_t batch, vocabulary;
  int64_t *lengths;        /* tokens that each sequence holds */
  int64_t *source_lengths; /* and its source; NULL for models without one */
  int64_t *added;          /* tokens of each row in a call */
  float *logits;           /* [batch, vocabulary]: after each sequence's last token */
  int64_t *ids;            /* room for a call's */
  size_t id_room;
} Decoder;

/* `batch` empty sequences, in the session's caches. */
Decoder *decoder_open(Memory *memory, edgeq_session *session, size_t batch);

/* Sequences from `count` sources, which are read at once. With `beams` above 1 there is one source, and so many
 * sequences share it. */
Decoder *decoder_open_sources(Memory *memory, edgeq_session *session, const Tokens *sources, size_t count, size_t beams);

/* Appends at least one token to every sequence and returns the logits after the last ones; they stay valid until the
 * next call. */
const float *decoder_append(Decoder *decoder, const Tokens *tokens);

/* Keeps `count` sequences, closed up, and forgets the others: ascending row numbers. */
void decoder_keep(Decoder *decoder, const size_t *rows, size_t count);

/* Makes each sequence go on from another one of the same source and length. */
void decoder_reorder(Decoder *decoder, const size_t *rows);

#endif
