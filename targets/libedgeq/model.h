/* The compiled model: TVM's runtime libraries, opened at start, and model.so in its virtual machine. */
#ifndef EDGEQ_MODEL_H
#define EDGEQ_MODEL_H

#include "bundle.h"
#include "state.h"

typedef struct Model Model;

/* Outputs of one run; their data stays valid until outputs_release. */
typedef struct {
  Array *arrays; /* as many as the function's outputs */
  void *owner;
} Outputs;

/* Opens libtvm_ffi.so and libtvm_runtime.so in `libraries` and loads the bundle's model.so.
 * `threads` is 0 for the environment's choice or every core. Stops the program if anything is missing. */
Model *model_open(const Bundle *bundle, const char *libraries, int threads);

/* The caches that runs read and change from now on; NULL before they are released. To be called again when their
 * shapes change. */
void model_use_state(Model *model, const State *state);

/* Runs a function on inputs that check_inputs has accepted; one that makes text needs a state. */
Outputs model_run(Model *model, FunctionName name, const Array *inputs);

/* A kernel is about to run, or has run. Bytes are those of all its tensors, and of those that are weights. */
typedef struct {
  const char *name; /* `length` bytes, no end mark */
  size_t length;
  bool before;
  size_t bytes, weight_bytes;
} KernelEvent;

/* Calls `watch` around every kernel from now on. */
void model_watch_kernels(Model *model, void (*watch)(void *context, const KernelEvent *event), void *context);

void outputs_release(Model *model, Outputs *outputs);

#endif
