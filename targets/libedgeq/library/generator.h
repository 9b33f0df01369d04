/* Making texts, token by token: prompts that are continued, or sources from which others are written. */
#ifndef EDGEQ_GENERATOR_H
#define EDGEQ_GENERATOR_H

#include "session.h"

/* Checks and prepares texts, in the session's memory for them; the ones before are forgotten. */
void generator_start(edgeq_session *session, const edgeq_text *texts, size_t count, const edgeq_generation *options);

/* Makes the next token; returns false if every text is complete. */
bool generator_next(edgeq_session *session, edgeq_piece *piece);

/* What was made of a text so far. */
void generator_result(edgeq_session *session, size_t index, edgeq_generated *generated);

/* Forgets all texts: something else uses the caches. */
void generator_end(edgeq_session *session);

#endif
