/* One text that is made: what it goes on from, how its tokens are chosen, and what was made so far. */
#ifndef EDGEQ_SEQUENCE_H
#define EDGEQ_SEQUENCE_H

#include "rules.h"
#include "session.h"
#include "text_stream.h"

typedef struct Sequence Sequence;

struct Sequence {
  const edgeq_model *model;
  Memory memory;     /* of everything that the text needs until it is forgotten */
  Memory choosing;   /* of the sampler, while the text is generated */
  Sequence *waiting; /* the next text of those that have not begun */
  size_t index;      /* the text's number for the caller */
  Settings settings;
  Tokens given;
  int64_t asked; /* new tokens, if nothing else ends the text */
  Rules rules;
  Tokens made;
  size_t shown; /* of those: with beam search all are made before the first is shown */
  Sampler *sampler;
  double score;          /* with beam search */
  double start, seconds; /* when the first token came, 0 before; from the first token to the last */
  int64_t *banned;
  Stop *stops;
  size_t stop_count;
  TextStream stream;
  int32_t finish;
};

/* A text of the session's model without tokens; its memory is part of the session's for texts. */
Sequence *sequence_new(edgeq_session *session);

/* What the caller asks of the text: settings, stop texts. Fails if they make no sense. */
void sequence_ask(Sequence *sequence, const edgeq_generation *options);

/* Makes everything ready for the tokens of a prompt or of an encoder input. */
void sequence_prepare(Sequence *sequence, Tokens given);

/* Makes ready what only a text that is being made needs. */
void sequence_begin(Sequence *sequence);

/* Chooses the next token from logits; a text that gets no further tokens no longer needs `choosing`. */
void sequence_choose(Sequence *sequence, const float *logits);

/* Turns the next token that was not shown into a piece, without its logits. */
void sequence_show(Sequence *sequence, edgeq_piece *piece);

#endif
