/* Texts that a caller gives: to token ids, and through models that make none to vectors. */
#ifndef EDGEQ_TEXTS_H
#define EDGEQ_TEXTS_H

#include "rules.h"
#include "session.h"

/* What sentences call text `index` of a call. */
const char *text_name(Memory *memory, const edgeq_text *text, size_t index);

/* Token ids of a text, at least one, as long as `memory` lasts. */
Tokens text_tokens(Memory *memory, const edgeq_session *session, const edgeq_text *text, const char *name);

/* Token ids of all texts; fails if the model does not take one of them. */
Tokens *checked_texts(Memory *memory, const edgeq_session *session, const edgeq_text *texts, size_t count);

/* Runs texts, and gives [count, width] values: embeddings or logits. `tokens` may be NULL. */
void run_texts(edgeq_session *session, const edgeq_text *texts, size_t count, size_t batch, float *values,
               size_t *tokens);

/* Probabilities of classes. */
void softmax(const float *logits, size_t count, double *scores);

#endif
