#include "node.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_call.h"

enum { ROW_TILE = 16, COLUMN_GROUP = 4, ACTIVATION_LEVELS = 127 };

#define TRY(expression)                    \
  do {                                     \
    OrtStatus *status_ = (expression);     \
    if (status_ != NULL) return status_;   \
  } while (0)

OrtStatus *node_error(const OrtApi *api, int code, const char *where, const char *format, ...) {
  char message[512];
  int used = snprintf(message, sizeof message, "%s: ", where);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message + used, sizeof message - (size_t)used, format, arguments);
  va_end(arguments);
  return api->CreateStatus(code, message);
}

bool is_aligned(const void *data) { return (uintptr_t)data % KERNEL_ALIGNMENT == 0; }

static void *aligned_memory(size_t size) {
  return aligned_alloc(KERNEL_ALIGNMENT, (size + KERNEL_ALIGNMENT - 1) / KERNEL_ALIGNMENT * KERNEL_ALIGNMENT);
}

static int64_t rounded_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

void packed_sizes(const PackedNode *node, int64_t sizes[3]) {
  sizes[0] = rounded_up(node->rows, ROW_TILE);
  sizes[1] = rounded_up(node->columns, COLUMN_GROUP * (8 / node->bits));
  sizes[2] = ROW_TILE;
}

/* Data and sizes of a tensor that ONNX Runtime holds. */
static OrtStatus *read_tensor(const OrtApi *api, const OrtValue *value, const char *where, Input *out) {
  OrtTensorTypeAndShapeInfo *info = NULL;
  TRY(api->GetTensorTypeAndShape(value, &info));
  size_t rank = 0;
  OrtStatus *status = api->GetDimensionsCount(info, &rank);
  if (status == NULL && rank > MAX_INPUT_RANK) {
    status = node_error(api, ORT_INVALID_ARGUMENT, where, "an input has %zu dimensions, at most %d are supported", rank,
                        MAX_INPUT_RANK);
  }
  if (status == NULL) status = api->GetDimensions(info, out->sizes, rank);
  api->ReleaseTensorTypeAndShapeInfo(info);
  TRY(status);
  out->rank = (int)rank;
  out->count = 1;
  for (size_t i = 0; i < rank; i++) out->count *= out->sizes[i];
  /* The function has no const variant; nothing writes through this pointer. */
  return api->GetTensorMutableData((OrtValue *)(uintptr_t)value, (void **)(uintptr_t)&out->data);
}

OrtStatus *read_input(const OrtApi *api, const OrtKernelContext *context, size_t index, const char *where, Input *out) {
  const OrtValue *value = NULL;
  TRY(api->KernelContext_GetInput(context, index, &value));
  if (value == NULL) return node_error(api, ORT_INVALID_ARGUMENT, where, "input %zu is missing", index);
  return read_tensor(api, value, where, out);
}

OrtStatus *make_output(const OrtApi *api, OrtKernelContext *context, const Input *like, int dropped, int64_t last,
                       float **out) {
  int64_t sizes[MAX_INPUT_RANK + 1];
  int kept = like->rank - dropped;
  memcpy(sizes, like->sizes, (size_t)kept * sizeof *sizes);
  sizes[kept] = last;
  OrtValue *value = NULL;
  TRY(api->KernelContext_GetOutput(context, 0, sizes, (size_t)kept + 1, &value));
  return api->GetTensorMutableData(value, (void **)out);
}

static OrtStatus *read_constant(const PackedNode *node, const OrtKernelInfo *info, size_t index, const char *name,
                                Input *out) {
  const OrtValue *value = NULL;
  int is_constant = 0;
  OrtStatus *status = node->api->KernelInfoGetConstantInput_tensor(info, index, &is_constant, &value);
  if (status != NULL) node->api->ReleaseStatus(status); /* it only says that there is no such input */
  if (status != NULL || !is_constant || value == NULL) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where, "input %s must be an initializer", name);
  }
  return read_tensor(node->api, value, node->where, out);
}

OrtStatus *read_row_parameter(const PackedNode *node, const OrtKernelInfo *info, size_t index, const char *name,
                              float **out) {
  Input given;
  TRY(read_constant(node, info, index, name, &given));
  if (given.rank != 1 || (given.count != 1 && given.count != node->rows)) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where, "%s must have 1 or N=%lld entries, found %lld", name,
                      (long long)node->rows, (long long)given.count);
  }
  *out = aligned_memory((size_t)node->rows * sizeof **out);
  if (*out == NULL) return node_error(node->api, ORT_FAIL, node->where, "out of memory");
  const float *values = given.data;
  for (int64_t row = 0; row < node->rows; row++) (*out)[row] = values[given.count == 1 ? 0 : row];
  return NULL;
}

/* The name helps to find the node; a node without one is named by its operator alone. */
static void describe(PackedNode *node, const OrtKernelInfo *info, const char *operator_name) {
  char name[100] = "";
  size_t size = 0;
  OrtStatus *status = node->api->KernelInfo_GetNodeName(info, NULL, &size);
  if (status == NULL && size <= sizeof name) status = node->api->KernelInfo_GetNodeName(info, name, &size);
  if (status != NULL) node->api->ReleaseStatus(status);
  if (name[0] != '\0') {
    snprintf(node->where, sizeof node->where, "ai.edgeq::%s %s", operator_name, name);
  } else {
    snprintf(node->where, sizeof node->where, "ai.edgeq::%s", operator_name);
  }
}

static OrtStatus *read_sizes(PackedNode *node, const OrtKernelInfo *info) {
  struct {
    const char *name;
    int64_t *out;
  } integers[] = {{"N", &node->rows}, {"K", &node->columns}, {"bits", &node->bits}};
  for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
    OrtStatus *status = node->api->KernelInfoGetAttribute_int64(info, integers[i].name, integers[i].out);
    if (status != NULL) {
      node->api->ReleaseStatus(status);
      return node_error(node->api, ORT_INVALID_ARGUMENT, node->where, "attribute %s (an integer) is missing",
                        integers[i].name);
    }
  }
  OrtStatus *status = node->api->KernelInfoGetAttribute_float(info, "zero_point", &node->zero_point);
  if (status != NULL) {
    node->api->ReleaseStatus(status);
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where, "attribute zero_point (a float) is missing");
  }
  return NULL;
}

static OrtStatus *check_sizes(const PackedNode *node) {
  if (bit_width_index(node->bits) < 0) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where, "bits must be 1, 2, 4 or 8, found %lld",
                      (long long)node->bits);
  }
  if (node->family->product[bit_width_index(node->bits)] == NULL) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where,
                      "this library was built without kernels for %lld-bit codes", (long long)node->bits);
  }
  if (node->rows < 1 || node->columns < 1 || node->rows > INT32_MAX || node->columns > INT32_MAX) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where, "N and K must be 1 to 2^31 - 1, found %lld and %lld",
                      (long long)node->rows, (long long)node->columns);
  }
  float doubled = node->zero_point * 2, largest = (float)((1 << node->bits) - 1);
  if (!(node->zero_point >= 0 && node->zero_point <= largest) || doubled != (float)(int)doubled) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where,
                      "zero_point must be a multiple of 0.5 from 0 to %g, found %g", (double)largest,
                      (double)node->zero_point);
  }
  int64_t fields = 8 / node->bits, levels = (1 << node->bits) - 1;
  int64_t in_place = rounded_up(node->columns, fields) * 255 * ACTIVATION_LEVELS;
  int64_t in_steps = 2 * node->columns * levels * ACTIVATION_LEVELS;
  if (in_place > INT32_MAX || in_steps > INT32_MAX) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where,
                      "%lld columns of %lld-bit codes can overflow a 32-bit sum", (long long)node->columns,
                      (long long)node->bits);
  }
  return NULL;
}

static OrtStatus *read_weight(PackedNode *node, const OrtKernelInfo *info) {
  Input weight;
  TRY(read_constant(node, info, 1, "W_packed", &weight));
  int64_t expected[3];
  packed_sizes(node, expected);
  if (weight.rank != 4 || weight.sizes[0] != expected[0] || weight.sizes[1] != expected[1] ||
      weight.sizes[2] != ROW_TILE || weight.sizes[3] != COLUMN_GROUP) {
    return node_error(node->api, ORT_INVALID_ARGUMENT, node->where,
                      "W_packed of a %lld x %lld matrix of %lld-bit codes must have the sizes %lld x %lld x 16 x 4",
                      (long long)node->rows, (long long)node->columns, (long long)node->bits, (long long)expected[0],
                      (long long)expected[1]);
  }
  node->weight = weight.data;
  if (!is_aligned(weight.data)) {
    node->weight_copy = aligned_memory((size_t)weight.count);
    if (node->weight_copy == NULL) return node_error(node->api, ORT_FAIL, node->where, "out of memory");
    memcpy(node->weight_copy, weight.data, (size_t)weight.count);
    node->weight = node->weight_copy;
  }
  return NULL;
}

OrtStatus *open_node(PackedNode *node, const OrtApi *api, const OrtKernelInfo *info, const char *operator_name) {
  node->api = api;
  describe(node, info, operator_name);
  node->family = chosen_family();
  if (node->family == NULL) {
    return node_error(api, ORT_FAIL, node->where,
                      "this library has no kernels for this processor, or not those that EDGEQ_ORT_KERNELS names");
  }
  return NULL;
}

OrtStatus *read_packed_node(PackedNode *node, const OrtApi *api, const OrtKernelInfo *info, const char *operator_name) {
  TRY(open_node(node, api, info, operator_name));
  TRY(read_sizes(node, info));
  TRY(check_sizes(node));
  TRY(read_weight(node, info));
  return read_row_parameter(node, info, 2, "scale", &node->scale);
}

void release_packed_node(PackedNode *node) {
  free(node->weight_copy);
  free(node->scale);
}
