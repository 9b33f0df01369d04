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

/* Number of the output that is shown: the embedding that the graph makes, or else the first of vectors, one a text or one
 * a token. As many as there are if there is none. */
size_t vectors_output(const Interface *main);

/* What a classifier's numbers mean: probabilities of classes, or the numbers themselves. */
void class_scores(Scores kind, const float *logits, size_t count, double *scores);

#endif
