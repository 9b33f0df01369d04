/* Calling a compiled kernel: tensors and numbers as TVM passes them. */
#ifndef EDGEQ_ORT_KERNEL_CALL_H
#define EDGEQ_ORT_KERNEL_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"
#include "ort_abi.h"
#include "threads.h"

enum { MAX_TENSORS = 7, MAX_ARGUMENTS = 10, MAX_RANK = 4 };

typedef struct {
  int count;
  int tensor_count;
  TVMFFIAny arguments[MAX_ARGUMENTS];
  DLTensor tensors[MAX_TENSORS];
  int64_t sizes[MAX_TENSORS][MAX_RANK];
} KernelCall;

/* Adds a tensor; `data` must be aligned to KERNEL_ALIGNMENT unless it is read element by element. */
void add_floats(KernelCall *call, const float *data, int rank, const int64_t *sizes);
void add_integers(KernelCall *call, const void *data, int bits, int rank, const int64_t *sizes);
void add_size(KernelCall *call, int64_t value);
void add_number(KernelCall *call, double value);

/* Runs the kernel; `in_parallel` allows it the threads of the session. NULL, or an error that names `where`. */
OrtStatus *run_kernel(const OrtApi *api, const OrtKernelContext *context, Kernel kernel, KernelCall *call,
                      bool in_parallel, const char *where);

#endif
