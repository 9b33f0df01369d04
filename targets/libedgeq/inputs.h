/* Inputs of the model: made from token ids, and checked before compiled code, which trusts them, sees them. */
#ifndef EDGEQ_INPUTS_H
#define EDGEQ_INPUTS_H

#include "bundle.h"
#include "texts.h"

/* Inputs for a batch of one text: `input_ids` from the text, every other input from its default. */
Array *inputs_from_text(const Bundle *bundle, const Text *text);

/* Frees what inputs_from_text or next_inputs returned. */
void inputs_release(const Bundle *bundle, FunctionName name, Array *inputs);

/* Stops the program, naming `where`, unless types, shapes and values are what the manifest allows. */
void check_inputs(const Bundle *bundle, FunctionName name, const Array *inputs, const char *where);

#endif
