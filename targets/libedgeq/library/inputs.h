/* Inputs of a call, checked before kernels, which trust them, see them. */
#ifndef EDGEQ_INPUTS_H
#define EDGEQ_INPUTS_H

#include "model.h"

/* Sizes of the plan's dimensions for these inputs and caches (NULL for none); `complete` gets the inputs with the shapes of
 * those that were left out. Fails with EDGEQ_USAGE, beginning with `where`, if types or shapes are not what the function
 * takes. */
void bind_inputs(Memory *memory, const Function *function, const edgeq_tensor *inputs, const edgeq_tensor *state,
                 edgeq_tensor *complete, int64_t *sizes, const char *where);

/* Fails unless the values of inputs that will not change any more are what the function takes. */
void check_values(const Memory *memory, const edgeq_model *model, const Function *function, const edgeq_tensor *inputs,
                  const char *where);

/* Writes the default value to an input. */
void fill_input(const edgeq_tensor *input, int64_t value);

#endif
