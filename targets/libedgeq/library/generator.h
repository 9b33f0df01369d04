/* Generates texts token by token, from prompts or from encoder inputs. */
#ifndef EDGEQ_GENERATOR_H
#define EDGEQ_GENERATOR_H

#include "session.h"

/* Checks and prepares texts, in the session's memory for them; the ones before are forgotten. */
void generator_start(edgeq_session *session, const edgeq_text *texts, size_t count, const edgeq_generation *options);

/* Forgets all texts; at most `batch` of those that are added from now on run together. */
void generator_open(edgeq_session *session, int64_t batch);

/* Adds a text and returns its number; those that are made go on. */
size_t generator_add(edgeq_session *session, const edgeq_text *text, const edgeq_generation *options);

/* Forgets a text, complete or not: its number may be used again. */
void generator_drop(edgeq_session *session, size_t index);

/* Makes the next token; returns false if every text is complete. */
bool generator_next(edgeq_session *session, edgeq_piece *piece);

/* What was made of a text so far. */
void generator_result(edgeq_session *session, size_t index, edgeq_generated *generated);

/* Forgets all texts: something else uses the caches. */
void generator_end(edgeq_session *session);

#endif
