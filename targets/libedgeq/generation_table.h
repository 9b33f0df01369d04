/* The table `generation` of a manifest: how a model makes text. */
#ifndef EDGEQ_GENERATION_TABLE_H
#define EDGEQ_GENERATION_TABLE_H

#include "bundle.h"

/* Fills `bundle->generation`, and the function `encode` if the model reads a source; its task, longest sequence, inputs
 * and outputs are read already. Stops the program if the functions have not exactly the interface that decoder.c
 * drives, or a value leads outside a cache or the vocabulary. */
void read_generation(Bundle *bundle, const JsonValue *root, const char *file);

#endif
