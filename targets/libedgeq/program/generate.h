/* Generates texts from prompts or from encoder inputs. */
#ifndef EDGEQ_GENERATE_H
#define EDGEQ_GENERATE_H

#include "edgeq.h"
#include "options.h"
#include "texts.h"

/* Prints for every text what the model makes of it: a text, or tokens if it was given as ids. */
void generate_texts(edgeq_session *session, const Texts *texts, const Options *options);

#endif
