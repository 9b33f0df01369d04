/* Texts to embeddings, and to the scores of classes. */
#ifndef EDGEQ_VECTORS_H
#define EDGEQ_VECTORS_H

#include "session.h"

/* Runs texts, and gives [count, width] values: embeddings or logits. `readings` may be NULL. */
void run_texts(edgeq_session *session, const edgeq_text *texts, size_t count, const edgeq_text_options *options,
               float *values, edgeq_reading *readings);

/* Number of the output that is shown: the embedding that the graph makes, or else the first of vectors, one a text or one
 * a token. As many as there are if there is none. */
size_t vectors_output(const Interface *main);

/* What a classifier's numbers mean: probabilities of classes, or the numbers themselves. */
void class_scores(Scores kind, const float *logits, size_t count, double *scores);

#endif
