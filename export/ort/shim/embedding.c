/* ai.edgeq::LowBitEmbedding: rows of a packed table, decoded while they are gathered. */
#include <stdlib.h>
#include <string.h>

#include "kernel_call.h"
#include "node.h"
#include "operator.h"
#include "threads.h"

enum { SLOT_IDS, SLOT_OUT = 4 };

static void destroy(void *kernel) {
  release_packed_node(kernel);
  free(kernel);
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **kernel) {
  (void)op;
  PackedNode *node = calloc(1, sizeof *node);
  if (node == NULL) return api->CreateStatus(ORT_FAIL, "out of memory");
  OrtStatus *status = read_packed_node(node, api, info, "LowBitEmbedding");
  if (status != NULL) {
    destroy(node);
    return status;
  }
  *kernel = node;
  return NULL;
}

/* The kernel reads row 0 for an id outside the table, so that it never reads outside memory; here it is an error. */
static OrtStatus *check_ids(const PackedNode *node, const int64_t *ids, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    if (ids[i] < 0 || ids[i] >= node->rows) {
      return node_error(node->api, ORT_INVALID_ARGUMENT, node->where, "id %lld is not in 0 to %lld", (long long)ids[i],
                        (long long)node->rows - 1);
    }
  }
  return NULL;
}

static OrtStatus *gather(const PackedNode *node, const OrtKernelContext *context, const int64_t *ids, int64_t count,
                         float *out) {
  int64_t packed[3];
  packed_sizes(node, packed);
  KernelCall call = {0};
  add_integers(&call, ids, 64, 1, &count);
  add_integers(&call, node->weight, 32, 3, packed);
  add_floats(&call, node->scale, 1, &node->rows);
  add_floats(&call, out, 2, (const int64_t[]){count, node->columns});
  add_size(&call, node->rows);
  add_size(&call, node->columns);
  add_number(&call, (double)node->zero_point);
  return run_kernel(node->api, context, node->family->embedding[bit_width_index(node->bits)], &call, true, node->where);
}

static OrtStatus *compute(void *kernel, OrtKernelContext *context) {
  const PackedNode *node = kernel;
  Input ids;
  OrtStatus *status = read_input(node->api, context, 0, node->where, &ids);
  if (status == NULL) status = check_ids(node, ids.data, ids.count);
  float *out = NULL;
  if (status == NULL) status = make_output(node->api, context, &ids, 0, node->columns, &out);
  if (status != NULL || ids.count == 0) return status;
  size_t id_bytes = (size_t)ids.count * sizeof(int64_t);
  size_t out_bytes = (size_t)(ids.count * node->columns) * sizeof(float);
  void *own_ids = is_aligned(ids.data) ? NULL : scratch(SLOT_IDS, id_bytes);
  float *own_out = is_aligned(out) ? out : scratch(SLOT_OUT, out_bytes);
  if ((own_ids == NULL && !is_aligned(ids.data)) || own_out == NULL) {
    return node_error(node->api, ORT_FAIL, node->where, "out of memory");
  }
  if (own_ids != NULL) memcpy(own_ids, ids.data, id_bytes);
  status = gather(node, context, own_ids != NULL ? own_ids : ids.data, ids.count, own_out);
  if (status == NULL && own_out != out) memcpy(out, own_out, out_bytes);
  return status;
}

const Description EMBEDDING = {.name = "LowBitEmbedding",
                               .inputs = 3,
                               .required = 3,
                               .types = {ORT_INT64, ORT_UINT8, ORT_FLOAT},
                               .dropped = 0,
                               .last = "K",
                               .create = create,
                               .compute = compute,
                               .destroy = destroy};
