/* One growing sequence: tokens in, logits of what follows out. */
#ifndef EDGEQ_DECODER_H
#define EDGEQ_DECODER_H

#include "bundle.h"
#include "model.h"

typedef struct {
  const Bundle *bundle;
  Model *model;
  Array *state;
  int64_t *tokens, *length, *added; /* the inputs: new tokens, tokens that the caches hold, number of new ones */
  Outputs outputs;                  /* of the last call */
} Decoder;

/* An empty sequence. Its caches stay the model's until decoder_close. */
Decoder decoder_open(const Bundle *bundle, Model *model);

/* Appends at least one token and returns the logits after the last; they stay valid until the next call. */
const float *decoder_append(Decoder *decoder, const int64_t *ids, size_t count, const char *where);

void decoder_close(Decoder *decoder);

#endif
