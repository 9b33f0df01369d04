/* Tokens in the place of masks. */
#ifndef EDGEQ_FILLINGS_H
#define EDGEQ_FILLINGS_H

#include "rows.h"

/* Fills masks; see edgeq_fill. */
void fill_texts(edgeq_session *session, const edgeq_text *texts, size_t count, const edgeq_text_options *options,
                const edgeq_fill_options *filling, edgeq_fillings *found, edgeq_reading *readings);

#endif
