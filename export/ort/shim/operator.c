/* What ONNX Runtime asks of an operator, answered from its description. */
#include "operator.h"

#include <limits.h>

#include "node.h"

static const Description *described(const OrtCustomOp *op) { return ((const Operator *)op)->description; }

static const char *name(const OrtCustomOp *op) { return described(op)->name; }

static size_t input_count(const OrtCustomOp *op) { return described(op)->inputs; }

static int input_type(const OrtCustomOp *op, size_t index) { return described(op)->types[index]; }

static int input_presence(const OrtCustomOp *op, size_t index) {
  return index < described(op)->required ? ORT_REQUIRED : ORT_OPTIONAL;
}

static const char *provider(const OrtCustomOp *op) {
  (void)op;
  return NULL; /* the processor */
}

static int float_type(const OrtCustomOp *op, size_t index) {
  (void)op;
  (void)index;
  return ORT_FLOAT;
}

static size_t one(const OrtCustomOp *op) {
  (void)op;
  return 1;
}

static int required(const OrtCustomOp *op, size_t index) {
  (void)op;
  (void)index;
  return ORT_REQUIRED;
}

static int in_main_memory(const OrtCustomOp *op, size_t index) {
  (void)op;
  (void)index;
  return 0;
}

static int not_variadic(const OrtCustomOp *op) {
  (void)op;
  return 0;
}

static int first_version(const OrtCustomOp *op) {
  (void)op;
  return 1;
}

static int last_version(const OrtCustomOp *op) {
  (void)op;
  return INT_MAX;
}

static OrtStatus *read_last_size(const OrtApi *api, const OrtShapeInferContext *context, const char *name,
                                 int64_t *out) {
  const OrtOpAttr *attribute = NULL;
  size_t size = 0;
  OrtStatus *status = api->ShapeInferContext_GetAttribute(context, name, &attribute);
  if (status != NULL) return status;
  return api->ReadOpAttr(attribute, ORT_ATTRIBUTE_INT, out, sizeof *out, &size);
}

static OrtStatus *set_sizes(const OrtApi *api, OrtShapeInferContext *context, const int64_t *sizes, const char **names,
                            size_t rank) {
  OrtTensorTypeAndShapeInfo *made = NULL;
  OrtStatus *status = api->CreateTensorTypeAndShapeInfo(&made);
  if (status != NULL) return status;
  status = api->SetTensorElementType(made, ORT_FLOAT);
  if (status == NULL) status = api->SetDimensions(made, sizes, rank);
  if (status == NULL) status = api->SetSymbolicDimensions(made, names, rank);
  if (status == NULL) status = api->ShapeInferContext_SetOutputTypeShape(context, 0, made);
  api->ReleaseTensorTypeAndShapeInfo(made);
  return status;
}

/* Sets the sizes of output 0; symbolic ones keep their names. Nothing is set where a size has neither value nor name. */
static OrtStatus *infer_sizes(const OrtCustomOp *op, OrtShapeInferContext *context) {
  const OrtApi *api = ((const Operator *)op)->api;
  const Description *own = described(op);
  OrtTensorTypeAndShapeInfo *input = NULL; /* the context keeps it */
  OrtStatus *status = api->ShapeInferContext_GetInputTypeShape(context, 0, &input);
  size_t rank = 0;
  if (status == NULL) status = api->GetDimensionsCount(input, &rank);
  if (status != NULL) return status;
  /* A rank that is not known reads as 0; a wrong one is reported by the node when it runs. */
  if (rank == 0 || (int)rank < own->dropped || rank > MAX_INPUT_RANK) return NULL;
  int64_t sizes[MAX_INPUT_RANK + 1];
  const char *names[MAX_INPUT_RANK + 1];
  status = api->GetDimensions(input, sizes, rank);
  if (status == NULL) status = api->GetSymbolicDimensions(input, names, rank);
  size_t kept = rank - (size_t)own->dropped;
  for (size_t i = 0; status == NULL && i < kept; i++) {
    if (sizes[i] < 0 && (names[i] == NULL || names[i][0] == '\0')) return NULL;
  }
  if (status != NULL) return status;
  if (own->last == NULL) return set_sizes(api, context, sizes, names, kept);
  status = read_last_size(api, context, own->last, &sizes[kept]);
  if (status != NULL) return status;
  names[kept] = "";
  return set_sizes(api, context, sizes, names, kept + 1);
}

void describe(Operator *operator, const Description *description, const OrtApi *api) {
  *operator = (Operator){
      .op = {.version = ORT_API_VERSION,
             .GetName = name,
             .GetExecutionProviderType = provider,
             .GetInputType = input_type,
             .GetInputTypeCount = input_count,
             .GetOutputType = float_type,
             .GetOutputTypeCount = one,
             .KernelDestroy = description->destroy,
             .GetInputCharacteristic = input_presence,
             .GetOutputCharacteristic = required,
             .GetInputMemoryType = in_main_memory,
             .GetVariadicInputMinArity = not_variadic,
             .GetVariadicInputHomogeneity = not_variadic,
             .GetVariadicOutputMinArity = not_variadic,
             .GetVariadicOutputHomogeneity = not_variadic,
             .CreateKernelV2 = description->create,
             .KernelComputeV2 = description->compute,
             .InferOutputShapeFn = infer_sizes,
             .GetStartVersion = first_version,
             .GetEndVersion = last_version},
      .api = api,
      .description = description};
}
