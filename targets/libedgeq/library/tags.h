/* Labels of tokens, and of the parts of a text that they make. */
#ifndef EDGEQ_TAGS_H
#define EDGEQ_TAGS_H

#include "rows.h"

/* Labels texts; see edgeq_tag. */
void tag_texts(edgeq_session *session, const edgeq_text *texts, size_t count, const edgeq_text_options *options,
               const edgeq_tag_options *tagging, edgeq_entities *found, edgeq_reading *readings);

#endif
