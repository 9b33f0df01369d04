#include "kernel_call.h"

#include <stdio.h>
#include <string.h>

static void add_tensor(KernelCall *call, const void *data, DLDataType type, int rank, const int64_t *sizes) {
  DLTensor *tensor = &call->tensors[call->tensor_count];
  int64_t *kept = call->sizes[call->tensor_count];
  call->tensor_count++;
  memset(tensor, 0, sizeof *tensor);
  memcpy(kept, sizes, (size_t)rank * sizeof *sizes);
  tensor->data = (void *)(uintptr_t)data; /* kernels do not write to what they only read */
  tensor->device.device_type = kDLCPU;
  tensor->ndim = rank;
  tensor->dtype = type;
  tensor->shape = kept;
  TVMFFIAny *argument = &call->arguments[call->count++];
  memset(argument, 0, sizeof *argument);
  argument->type_index = kTVMFFIDLTensorPtr;
  argument->v_ptr = tensor;
}

void add_floats(KernelCall *call, const float *data, int rank, const int64_t *sizes) {
  add_tensor(call, data, (DLDataType){kDLFloat, 32, 1}, rank, sizes);
}

void add_integers(KernelCall *call, const void *data, int bits, int rank, const int64_t *sizes) {
  add_tensor(call, data, (DLDataType){kDLInt, (uint8_t)bits, 1}, rank, sizes);
}

void add_size(KernelCall *call, int64_t value) {
  TVMFFIAny *argument = &call->arguments[call->count++];
  memset(argument, 0, sizeof *argument);
  argument->type_index = kTVMFFIInt;
  argument->v_int64 = value;
}

void add_number(KernelCall *call, double value) {
  TVMFFIAny *argument = &call->arguments[call->count++];
  memset(argument, 0, sizeof *argument);
  argument->type_index = kTVMFFIFloat;
  argument->v_float64 = value;
}

OrtStatus *run_kernel(const OrtApi *api, const OrtKernelContext *context, Kernel kernel, KernelCall *call,
                      bool in_parallel, const char *where) {
  TVMFFIAny result;
  memset(&result, 0, sizeof result);
  clear_kernel_error();
  use_threads_of(in_parallel ? api : NULL, context);
  int code = kernel(NULL, call->arguments, call->count, &result);
  use_threads_of(NULL, NULL);
  if (code == 0) return NULL;
  char message[512];
  snprintf(message, sizeof message, "%s: a kernel refused its arguments: %s", where, kernel_error());
  return api->CreateStatus(ORT_FAIL, message);
}
