/* ai.edgeq::Int8Attention: self-attention whose matmuls are sums of integers. */
#include <stdlib.h>
#include <string.h>

#include "kernel_call.h"
#include "node.h"
#include "operator.h"
#include "threads.h"

enum { QUERIES, KEYS, VALUES, MASK, INPUTS, SLOT_OUT = INPUTS };
enum { LARGEST_HEAD = 1040 }; /* columns whose int8 dot products float32 holds exactly */
static const int64_t PARALLEL_PRODUCTS = 1 << 18;

typedef struct {
  PackedNode node; /* it reads no matrix */
  int64_t heads;
  float scale;
} Attention;

static void destroy(void *kernel) { free(kernel); }

static OrtStatus *read_attributes(Attention *attention, const OrtKernelInfo *info) {
  PackedNode *node = &attention->node;
  OrtStatus *status = node->api->KernelInfoGetAttribute_int64(info, "num_heads", &attention->heads);
  if (status == NULL) status = node->api->KernelInfoGetAttribute_float(info, "scale", &attention->scale);
  if (status != NULL) {
    node->api->ReleaseStatus(status);
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where,
                      "attribute num_heads (an integer) or scale (a float) is missing");
  }
  if (attention->heads < 1) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where, "num_heads must be 1 or more, found %lld",
                      (long long)attention->heads);
  }
  return NULL;
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **kernel) {
  (void)op;
  Attention *attention = calloc(1, sizeof *attention);
  if (attention == NULL) return api->CreateStatus(ORT_FAIL, "out of memory");
  OrtStatus *status = open_node(&attention->node, api, info, "Int8Attention");
  if (status == NULL) status = read_attributes(attention, info);
  if (status != NULL) {
    destroy(attention);
    return status;
  }
  *kernel = attention;
  return NULL;
}

static bool is_of(const Input *input, int64_t batch, int64_t tokens, int64_t width) {
  return input->rank == 3 && input->sizes[0] == batch && input->sizes[1] == tokens && input->sizes[2] == width;
}

static OrtStatus *check_inputs(const Attention *attention, const Input inputs[INPUTS]) {
  const PackedNode *node = &attention->node;
  const Input *q = &inputs[QUERIES], *k = &inputs[KEYS], *mask = &inputs[MASK];
  int64_t width = q->rank == 3 ? q->sizes[2] : 0;
  if (width < 1 || width % attention->heads != 0 || width / attention->heads > LARGEST_HEAD) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where,
                      "Q must be [batch, queries, width] with %lld heads of 1 to %d columns, found rank %d, width %lld",
                      (long long)attention->heads, LARGEST_HEAD, q->rank, (long long)width);
  }
  int64_t batch = q->sizes[0], keys = k->rank == 3 ? k->sizes[1] : 0;
  if (keys < 1 || !is_of(k, batch, keys, width) || !is_of(&inputs[VALUES], batch, keys, width)) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where,
                      "K and V must be [batch, keys, width] with the batch and the width of Q, and one key or more");
  }
  if (mask->rank != 4 || mask->sizes[0] != batch || mask->sizes[1] != 1 || mask->sizes[2] != 1 ||
      mask->sizes[3] != keys) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where, "mask must be [batch, 1, 1, keys]");
  }
  return NULL;
}

/* Kernels read and write whole registers: what ONNX Runtime hands over is copied where it is not aligned. */
static const float *aligned(const Input *input, int slot) {
  if (is_aligned(input->data)) return input->data;
  size_t bytes = (size_t)input->count * sizeof(float);
  void *copy = scratch(slot, bytes);
  return copy == NULL ? NULL : memcpy(copy, input->data, bytes);
}

static OrtStatus *attend(const Attention *attention, const OrtKernelContext *context, const Input inputs[INPUTS],
                         float *out) {
  const PackedNode *node = &attention->node;
  const Input *q = &inputs[QUERIES];
  size_t out_bytes = (size_t)q->count * sizeof(float);
  float *own_out = is_aligned(out) ? out : scratch(SLOT_OUT, out_bytes);
  KernelCall call = {0};
  for (int i = 0; i < INPUTS; i++) {
    const float *data = aligned(&inputs[i], i);
    if (data == NULL || own_out == NULL) return node_error(node->api, ORT_FAIL, node->where, "out of memory");
    add_floats(&call, data, inputs[i].rank, inputs[i].sizes);
  }
  add_floats(&call, own_out, 3, q->sizes);
  add_size(&call, attention->heads);
  add_number(&call, (double)attention->scale);
  bool in_parallel = q->count * inputs[KEYS].sizes[1] >= PARALLEL_PRODUCTS;
  OrtStatus *status = run_kernel(node->api, context, node->family->attention, &call, in_parallel, node->where);
  if (status == NULL && own_out != out) memcpy(out, own_out, out_bytes);
  return status;
}

static OrtStatus *compute(void *kernel, OrtKernelContext *context) {
  const Attention *attention = kernel;
  const PackedNode *node = &attention->node;
  Input inputs[INPUTS];
  OrtStatus *status = NULL;
  for (int i = 0; i < INPUTS && status == NULL; i++) {
    status = read_input(node->api, context, (size_t)i, node->where, &inputs[i]);
  }
  const Input *q = &inputs[QUERIES];
  if (status == NULL && q->count > 0) status = check_inputs(attention, inputs);
  float *out = NULL;
  if (status == NULL) status = make_output(node->api, context, q, 1, q->sizes[q->rank - 1], &out);
  if (status != NULL || q->count == 0) return status;
  return attend(attention, context, inputs, out);
}

const Description ATTENTION = {.name = "Int8Attention",
                               .inputs = INPUTS,
                               .required = INPUTS,
                               .types = {ORT_FLOAT, ORT_FLOAT, ORT_FLOAT, ORT_FLOAT},
                               .create = create,
                               .compute = compute,
                               .destroy = destroy};
