/* A bundle, read and checked. */
#ifndef EDGEQ_BUNDLE_H
#define EDGEQ_BUNDLE_H

#include "model.h"

/* Fills in a model from a bundle; fails if anything does not fit. `scratch` is what only this takes. */
void read_bundle(edgeq_model *model, Memory *scratch, const Source *source, const edgeq_open_options *options);

/* Compares a golden run with the digests of its file; false if it is damaged. */
bool golden_is_good(const edgeq_model *model, const GoldenRun *run);

#endif
