/* Continues texts, token by token. */
#ifndef EDGEQ_GENERATE_H
#define EDGEQ_GENERATE_H

#include "bundle.h"
#include "model.h"
#include "options.h"

/* Continues every text of options->ids by at most options->generate tokens and prints their ids as they come. */
void generate_texts(const Bundle *bundle, Model *model, const Options *options);

#endif
