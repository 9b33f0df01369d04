/* The operators of domain ai.edgeq as ONNX Runtime asks for them. */
#ifndef EDGEQ_ORT_OPERATORS_H
#define EDGEQ_ORT_OPERATORS_H

#include "ort_abi.h"

/* An operator, and the functions of the ONNX Runtime that it was registered with: shape inference gets only the
 * former. */
typedef struct {
  OrtCustomOp op; /* first, so that a pointer to it is one to this */
  const OrtApi *api;
} Operator;

void describe_linear(OrtCustomOp *op);
void describe_embedding(OrtCustomOp *op);
void describe_attention(OrtCustomOp *op);

/* Sets the sizes of output 0 to those of input 0 but the last `dropped`, then attribute `last` unless it is NULL;
 * symbolic ones keep their names. Nothing is set where a size has neither value nor name. */
OrtStatus *infer_sizes(const OrtCustomOp *op, OrtShapeInferContext *context, int dropped, const char *last);

#endif
