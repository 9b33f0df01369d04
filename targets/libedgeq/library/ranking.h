/* Documents by how well they fit a query. */
#ifndef EDGEQ_RANKING_H
#define EDGEQ_RANKING_H

#include "session.h"

/* Sorts documents; see edgeq_rank. */
void rank_documents(edgeq_session *session, const edgeq_text *query, const edgeq_text *documents, size_t count,
                    const edgeq_text_options *options, edgeq_ranked *ranked, edgeq_reading *readings);

#endif
