/* The table `generation` of a manifest: how a model generates text. */
#ifndef EDGEQ_GENERATION_TABLE_H
#define EDGEQ_GENERATION_TABLE_H

#include "json.h"
#include "model.h"

/* Fills in `model->generation`; the model's functions and its task are read already. Fails if the functions have not
 * exactly the interface that decoder.c drives, or a value leads outside a cache or the vocabulary. */
void read_generation(edgeq_model *model, const Json *json);

#endif
