/* The library's one entry point, and what its operators have in common. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "node.h"
#include "operators.h"
#include "threads.h"

enum { OPERATORS = 3 };

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

static void describe_common(Operator *described, const OrtApi *api) {
  OrtCustomOp *op = &described->op;
  described->api = api;
  op->version = ORT_API_VERSION;
  op->GetExecutionProviderType = provider;
  op->GetOutputType = float_type;
  op->GetOutputTypeCount = one;
  op->GetOutputCharacteristic = required;
  op->GetInputMemoryType = in_main_memory;
  op->GetVariadicInputMinArity = not_variadic;
  op->GetVariadicInputHomogeneity = not_variadic;
  op->GetVariadicOutputMinArity = not_variadic;
  op->GetVariadicOutputHomogeneity = not_variadic;
  op->GetStartVersion = first_version;
  op->GetEndVersion = last_version;
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

OrtStatus *infer_sizes(const OrtCustomOp *op, OrtShapeInferContext *context, int dropped, const char *last) {
  const OrtApi *api = ((const Operator *)op)->api;
  OrtTensorTypeAndShapeInfo *input = NULL; /* the context keeps it */
  OrtStatus *status = api->ShapeInferContext_GetInputTypeShape(context, 0, &input);
  size_t rank = 0;
  if (status == NULL) status = api->GetDimensionsCount(input, &rank);
  if (status != NULL) return status;
  /* A rank that is not known reads as 0; a wrong one is reported by the node when it runs. */
  if (rank == 0 || (int)rank < dropped || rank > MAX_INPUT_RANK) return NULL;
  int64_t sizes[MAX_INPUT_RANK + 1];
  const char *names[MAX_INPUT_RANK + 1];
  status = api->GetDimensions(input, sizes, rank);
  if (status == NULL) status = api->GetSymbolicDimensions(input, names, rank);
  size_t kept = rank - (size_t)dropped;
  for (size_t i = 0; status == NULL && i < kept; i++) {
    if (sizes[i] < 0 && (names[i] == NULL || names[i][0] == '\0')) return NULL;
  }
  if (status != NULL) return status;
  if (last == NULL) return set_sizes(api, context, sizes, names, kept);
  status = read_last_size(api, context, last, &sizes[kept]);
  if (status != NULL) return status;
  names[kept] = "";
  return set_sizes(api, context, sizes, names, kept + 1);
}

__attribute__((visibility("default"))) OrtStatus *RegisterCustomOps(OrtSessionOptions *options,
                                                                    const OrtApiBase *base) {
  const OrtApi *api = base->GetApi(ORT_API_VERSION);
  if (api == NULL) {
    const OrtApi *oldest = base->GetApi(1);
    return oldest->CreateStatus(ORT_FAIL, "edgeq's operators need ONNX Runtime 1.17 or later");
  }
  connect_kernels();
  /* ONNX Runtime keeps pointers to these as long as any session lives, and does not say when the last one ends. */
  Operator *operators = calloc(OPERATORS, sizeof *operators);
  OrtCustomOpDomain *domain = NULL;
  if (operators == NULL) return api->CreateStatus(ORT_FAIL, "out of memory");
  describe_linear(&operators[0].op);
  describe_embedding(&operators[1].op);
  describe_attention(&operators[2].op);
  OrtStatus *status = api->CreateCustomOpDomain("ai.edgeq", &domain);
  for (int i = 0; i < OPERATORS && status == NULL; i++) {
    describe_common(&operators[i], api);
    status = api->CustomOpDomain_Add(domain, &operators[i].op);
  }
  return status != NULL ? status : api->AddCustomOpDomain(options, domain);
}
