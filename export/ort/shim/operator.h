/* An operator of domain ai.edgeq as ONNX Runtime asks for it. */
#ifndef EDGEQ_ORT_OPERATOR_H
#define EDGEQ_ORT_OPERATOR_H

#include "ort_abi.h"

enum { MOST_INPUTS = 5 };

/* What one operator says of itself. Its output is float32: the sizes of input 0 but the last `dropped`, and then the
 * attribute `last`, unless that is NULL. */
typedef struct {
  const char *name;
  size_t inputs, required; /* the ones behind the required may be missing */
  int types[MOST_INPUTS];
  int dropped;
  const char *last;
  OrtStatus *(*create)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **kernel);
  OrtStatus *(*compute)(void *kernel, OrtKernelContext *context);
  void (*destroy)(void *kernel);
} Description;

extern const Description LINEAR, EMBEDDING, ATTENTION;

/* An operator, and the functions of the ONNX Runtime that it was registered with: shape inference gets only the
 * former. */
typedef struct {
  OrtCustomOp op; /* first, so that a pointer to it is one to this */
  const OrtApi *api;
  const Description *description;
} Operator;

/* Fills `operator` in; `description` must live as long. */
void describe(Operator *operator, const Description *description, const OrtApi *api);

#endif
