/* ai.edgeq::LowBitLinear: rows to int8, the integer matmul and the way back to floats; or floats times codes. */
#include <stdlib.h>
#include <string.h>

#include "kernel_call.h"
#include "node.h"
#include "operator.h"
#include "threads.h"

enum { COLUMN_PADDING = 64 };
enum { SLOT_X, SLOT_CODES, SLOT_SCALES, SLOT_SUMS, SLOT_OUT };
typedef enum { DYNAMIC, STATIC, NONE } Activation;

/* Products of fewer multiplications than this are done by the calling thread: waking another takes longer. */
static const int64_t PARALLEL_PRODUCTS = 1 << 18;

typedef struct {
  PackedNode node;
  Activation activation;
  float *bias; /* N values, aligned */
} Linear;

typedef struct {
  int64_t tokens;
  const float *x;
  float *out;
  bool in_parallel;
} Rows;

static void destroy(void *kernel) {
  Linear *linear = kernel;
  release_packed_node(&linear->node);
  free(linear->bias);
  free(linear);
}

static OrtStatus *read_activation(Linear *linear, const OrtKernelInfo *info) {
  const OrtApi *api = linear->node.api;
  char name[16] = "";
  size_t size = sizeof name;
  OrtStatus *status = api->KernelInfoGetAttribute_string(info, "activation", name, &size);
  if (status != NULL) api->ReleaseStatus(status);
  const char *const names[] = {"dynamic", "static", "none"};
  for (int i = 0; status == NULL && i < 3; i++) {
    if (strcmp(name, names[i]) == 0) {
      linear->activation = (Activation)i;
      return NULL;
    }
  }
  return node_error(api, ORT_INVALID_ARGUMENT, linear->node.where,
                    "attribute activation must be dynamic, static or none, found '%s'", name);
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **kernel) {
  (void)op;
  Linear *linear = calloc(1, sizeof *linear);
  if (linear == NULL) return api->CreateStatus(ORT_FAIL, "out of memory");
  OrtStatus *status = read_packed_node(&linear->node, api, info, "LowBitLinear");
  if (status == NULL) status = read_activation(linear, info);
  if (status == NULL) status = read_row_parameter(&linear->node, info, 3, "bias", &linear->bias);
  if (status != NULL) {
    destroy(linear);
    return status;
  }
  *kernel = linear;
  return NULL;
}

static void add_matrix(KernelCall *call, const Linear *linear, const Rows *rows) {
  const PackedNode *node = &linear->node;
  int64_t packed[3];
  packed_sizes(node, packed);
  add_integers(call, node->weight, 32, 3, packed);
  add_floats(call, node->scale, 1, &node->rows);
  add_floats(call, linear->bias, 1, &node->rows);
  add_floats(call, rows->out, 2, (const int64_t[]){rows->tokens, node->rows});
  add_size(call, node->rows);
  add_size(call, node->columns);
  add_number(call, (double)node->zero_point);
}

static OrtStatus *run_integer(const Linear *linear, const OrtKernelContext *context, const Rows *rows,
                              const float *given_scale) {
  const PackedNode *node = &linear->node;
  int64_t words = (node->columns + COLUMN_PADDING - 1) / COLUMN_PADDING * COLUMN_PADDING / 4;
  void *codes = scratch(SLOT_CODES, (size_t)(rows->tokens * words) * 4);
  float *scales = scratch(SLOT_SCALES, (size_t)rows->tokens * sizeof *scales);
  int32_t *sums = scratch(SLOT_SUMS, (size_t)rows->tokens * sizeof *sums);
  if (codes == NULL || scales == NULL || sums == NULL) {
    return node_error(node->api, ORT_FAIL, node->where, "out of memory");
  }
  const int64_t code_sizes[] = {rows->tokens, words};
  KernelCall quantize = {0};
  add_floats(&quantize, rows->x, 2, (const int64_t[]){rows->tokens, node->columns});
  if (given_scale != NULL) add_floats(&quantize, given_scale, 1, (const int64_t[]){1});
  add_integers(&quantize, codes, 32, 2, code_sizes);
  add_floats(&quantize, scales, 1, &rows->tokens);
  add_integers(&quantize, sums, 32, 1, &rows->tokens);
  Kernel quantizer = given_scale != NULL ? node->family->quantize_static : node->family->quantize_dynamic;
  OrtStatus *status = run_kernel(node->api, context, quantizer, &quantize, rows->in_parallel, node->where);
  if (status != NULL) return status;
  KernelCall product = {0};
  add_integers(&product, codes, 32, 2, code_sizes);
  add_floats(&product, scales, 1, &rows->tokens);
  add_integers(&product, sums, 32, 1, &rows->tokens);
  add_matrix(&product, linear, rows);
  Kernel kernel = node->family->product[bit_width_index(node->bits)];
  return run_kernel(node->api, context, kernel, &product, rows->in_parallel, node->where);
}

static OrtStatus *run_weight_only(const Linear *linear, const OrtKernelContext *context, const Rows *rows) {
  const PackedNode *node = &linear->node;
  KernelCall product = {0};
  add_floats(&product, rows->x, 2, (const int64_t[]){rows->tokens, node->columns});
  add_matrix(&product, linear, rows);
  Kernel kernel = node->family->weight_only[bit_width_index(node->bits)];
  return run_kernel(node->api, context, kernel, &product, rows->in_parallel, node->where);
}

/* The scale of a static node, in memory of this thread that is aligned for the kernel. */
static OrtStatus *read_static_scale(const Linear *linear, const OrtKernelContext *context, const float **out) {
  const PackedNode *node = &linear->node;
  size_t inputs = 0;
  OrtStatus *status = node->api->KernelContext_GetInputCount(context, &inputs);
  if (status != NULL) return status;
  if (inputs < 5) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where, "a static activation needs input activation_scale");
  }
  Input given;
  status = read_input(node->api, context, 4, node->where, &given);
  if (status != NULL) return status;
  if (given.count != 1 || !(*(const float *)given.data > 0)) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where, "activation_scale must be one positive number");
  }
  *out = given.data;
  return NULL;
}

/* Kernels read and write whole registers: what ONNX Runtime hands over is copied where it is not aligned. */
static OrtStatus *run_rows(const Linear *linear, const OrtKernelContext *context, Rows *rows,
                           const float *given_scale) {
  const PackedNode *node = &linear->node;
  float *out = rows->out;
  size_t in_bytes = (size_t)(rows->tokens * node->columns) * sizeof(float);
  size_t out_bytes = (size_t)(rows->tokens * node->rows) * sizeof(float);
  if (!is_aligned(rows->x)) {
    void *copy = scratch(SLOT_X, in_bytes);
    if (copy == NULL) return node_error(node->api, ORT_FAIL, node->where, "out of memory");
    rows->x = memcpy(copy, rows->x, in_bytes);
  }
  if (!is_aligned(out)) {
    rows->out = scratch(SLOT_OUT, out_bytes);
    if (rows->out == NULL) return node_error(node->api, ORT_FAIL, node->where, "out of memory");
  }
  OrtStatus *status = linear->activation == NONE ? run_weight_only(linear, context, rows)
                                                 : run_integer(linear, context, rows, given_scale);
  if (status == NULL && rows->out != out) memcpy(out, rows->out, out_bytes);
  return status;
}

static OrtStatus *compute(void *kernel, OrtKernelContext *context) {
  const Linear *linear = kernel;
  const PackedNode *node = &linear->node;
  Input x;
  OrtStatus *status = read_input(node->api, context, 0, node->where, &x);
  if (status != NULL) return status;
  if (x.rank == 0 || x.sizes[x.rank - 1] != node->columns) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where, "X must have K=%lld columns, found %lld",
                      (long long)node->columns, x.rank == 0 ? 0LL : (long long)x.sizes[x.rank - 1]);
  }
  const float *given_scale = NULL;
  if (linear->activation == STATIC) status = read_static_scale(linear, context, &given_scale);
  if (status != NULL) return status;
  Rows rows = {x.count / node->columns, x.data, NULL, false};
  status = make_output(node->api, context, &x, 1, node->rows, &rows.out);
  if (status != NULL || rows.tokens == 0) return status;
  rows.in_parallel = rows.tokens * node->rows * node->columns >= PARALLEL_PRODUCTS;
  return run_rows(linear, context, &rows, given_scale);
}

const Description LINEAR = {.name = "LowBitLinear",
                            .inputs = 5,
                            .required = 4,
                            .types = {ORT_FLOAT, ORT_UINT8, ORT_FLOAT, ORT_FLOAT, ORT_FLOAT},
                            .dropped = 1,
                            .last = "N",
                            .create = create,
                            .compute = compute,
                            .destroy = destroy};
