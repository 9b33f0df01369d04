/* Texts through the model, and what is found printed as text or as JSON lines: embeddings, labels, parts, answers, tokens for
 * masks, documents in order. `edgeq run` prints the same JSON. */
#ifndef EDGEQ_RESULTS_H
#define EDGEQ_RESULTS_H

#include "options.h"
#include "texts.h"

/* Runs texts and prints a line for each, in order; blank ones keep their place. */
void print_results(const edgeq_model *model, edgeq_session *session, const Texts *texts, const Options *options);

/* Prints the token ids of texts, and does nothing else with them. */
void print_tokens(edgeq_session *session, const Texts *texts, const Options *options);

/* Sorts documents by a query, and prints a line for each. */
void print_ranks(edgeq_session *session, const Texts *documents, const Options *options);

#endif
