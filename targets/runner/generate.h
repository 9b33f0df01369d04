/* Making text: prompts that are continued, or sources from which others are written. */
#ifndef EDGEQ_GENERATE_H
#define EDGEQ_GENERATE_H

#include "bundle.h"
#include "model.h"
#include "options.h"

/* Prints for every text in the file of ids the tokens that the model makes of it. */
void generate_texts(const Bundle *bundle, Model *model, const Options *options);

#endif
