/* Texts that a caller gives: to token ids, and through models that make none to vectors. */
#ifndef EDGEQ_TEXTS_H
#define EDGEQ_TEXTS_H

#include "rules.h"
#include "session.h"

/* What sentences call text `index` of a call. */
const char *text_name(Memory *memory, const edgeq_text *text, size_t index);

/* Token ids of a text, at least one, as long as `memory` lasts. */
Tokens text_tokens(Memory *memory, const edgeq_session *session, const edgeq_text *text, const char *name);

/* Fails if a text holds another token than 0..`most`, or more than `longest` of them (0 for any number). */
void check_tokens(const Memory *memory, const Tokens *tokens, int64_t most, int64_t longest, const char *name);

/* Runs texts, and gives [count, width] values: embeddings or logits. `tokens` may be NULL. */
void run_texts(edgeq_session *session, const edgeq_text *texts, size_t count, size_t batch, float *values,
               size_t *tokens);

/* Probabilities of classes. */
void softmax(const float *logits, size_t count, double *scores);

#endif
