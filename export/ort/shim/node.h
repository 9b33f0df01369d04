/* What the operators read from their node: attributes, constants, and its name for error messages. */
#ifndef EDGEQ_ORT_NODE_H
#define EDGEQ_ORT_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels.h"
#include "ort_abi.h"

typedef struct {
  const OrtApi *api;
  const KernelFamily *family;
  char where[160]; /* operator and name of the node */
  int64_t rows;    /* N */
  int64_t columns; /* K */
  int64_t bits;
  float zero_point;
  const void *weight; /* where ONNX Runtime keeps it: in the mapped file if it is external data */
  void *weight_copy;  /* NULL, or a copy of a weight that is not aligned */
  float *scale;       /* N values, aligned */
} PackedNode;

/* An error of one sentence: `where`, then the formatted text. */
OrtStatus *node_error(const OrtApi *api, int code, const char *where, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Names the node and finds the kernels of this processor: what every operator begins with. */
OrtStatus *open_node(PackedNode *node, const OrtApi *api, const OrtKernelInfo *info, const char *operator_name);

/* Reads N, K, bits, zero_point, the packed weight (input 1) and the scale (input 2), and checks them. */
OrtStatus *read_packed_node(PackedNode *node, const OrtApi *api, const OrtKernelInfo *info, const char *operator_name);

/* A copy with N entries of constant input `index`, which has N entries or one for all; free() it. */
OrtStatus *read_row_parameter(const PackedNode *node, const OrtKernelInfo *info, size_t index, const char *name,
                              float **out);

void release_packed_node(PackedNode *node);

/* Sizes of a packed weight as the kernels see it: [N/16, K/(4F), 16] of 32-bit words. */
void packed_sizes(const PackedNode *node, int64_t sizes[3]);

/* An input of the running node and its sizes. */
enum { MAX_INPUT_RANK = 16 };
typedef struct {
  const void *data;
  int rank;
  int64_t sizes[MAX_INPUT_RANK];
  int64_t count; /* elements */
} Input;
OrtStatus *read_input(const OrtApi *api, const OrtKernelContext *context, size_t index, const char *where, Input *out);

/* Allocates the output of the running node: the sizes of `like` but its last `dropped`, then `last`. */
OrtStatus *make_output(const OrtApi *api, OrtKernelContext *context, const Input *like, int dropped, int64_t last,
                       float **out);

bool is_aligned(const void *data);

#endif
