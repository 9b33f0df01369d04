/* A batch of growing sequences: tokens in, logits of what follows out. */
#ifndef EDGEQ_DECODER_H
#define EDGEQ_DECODER_H

#include "rules.h"
#include "session.h"

typedef struct {
  edgeq_session *session;
  size_t room, batch, vocabulary; /* most sequences; those that there are */
  int64_t *lengths;        /* tokens that each sequence holds */
  int64_t *source_lengths; /* and its encoder input; NULL for models without one */
  int64_t *added;          /* tokens of each row in a call */
  float *logits;           /* [room, vocabulary]: after each sequence's last token */
  int64_t *ids;            /* room for a call's */
} Decoder;

/* No sequences yet, and room for some in the session's caches. */
Decoder *decoder_open(Memory *memory, edgeq_session *session, size_t room);

/* As many sequences as beams, which share one encoder input. */
Decoder *decoder_open_beams(Memory *memory, edgeq_session *session, Tokens source, size_t beams);

/* Adds `count` sequences behind those that there are. They are empty, or have read their encoder inputs, which is done at
 * once. `sources` are not looked at if the model reads none. */
void decoder_add(Decoder *decoder, const Tokens *sources, size_t count);

/* Appends at least one token to each of `count` sequences from row `first` on. Returns the logits of all rows, in which
 * those of these rows are new; they stay valid until the next call. */
const float *decoder_append(Decoder *decoder, const Tokens *tokens, size_t first, size_t count);

/* Keeps `count` sequences, closed up, and forgets the others: ascending row numbers. */
void decoder_keep(Decoder *decoder, const size_t *rows, size_t count);

/* Makes each sequence go on from another one of the same encoder input and length. */
void decoder_reorder(Decoder *decoder, const size_t *rows);

#endif
