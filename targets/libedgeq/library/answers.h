/* Answers to questions, found in texts. */
#ifndef EDGEQ_ANSWERS_H
#define EDGEQ_ANSWERS_H

#include "rows.h"

/* Finds answers; see edgeq_find_answers. */
void answer_texts(edgeq_session *session, const edgeq_text *texts, size_t count, const edgeq_text_options *options,
                  const edgeq_answer_options *answering, edgeq_answers *found, edgeq_reading *readings);

#endif
