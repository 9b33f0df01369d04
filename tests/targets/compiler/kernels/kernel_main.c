/* Runs one compiled kernel on the tensors of a file and writes them back: for an emulator, without TVM's runtime. */
#include <dlpack/dlpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <tvm/ffi/c_api.h>

enum { MOST_TENSORS = 16, MOST_DIMENSIONS = 8 };

typedef struct {
  void *handle;
  int32_t tasks;
} Group;
typedef int (*Task)(int index, Group *group, void *data);

static int launch_one(Task task, void *data, int tasks) {
  Group group = {NULL, 1};
  (void)tasks;
  return task(0, &group, data);
}

static void *allocate(int device, int number, uint64_t bytes, int code, int bits) {
  (void)device, (void)number, (void)code, (void)bits;
  return aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64);
}

static int release(int device, int number, void *memory) {
  (void)device, (void)number;
  free(memory);
  return 0;
}

/* What compiled code calls of TVM's runtime. */
int (*__TVMBackendParallelLaunch)(Task task, void *data, int tasks) = launch_one;
void *(*__TVMBackendAllocWorkspace)(int device, int number, uint64_t bytes, int code, int bits) = allocate;
int (*__TVMBackendFreeWorkspace)(int device, int number, void *memory) = release;

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; i++) fputs(parts[i], stderr);
  exit(1);
}

int __tvm_ffi_main(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result);

static void need(int condition) {
  if (!condition) exit(2);
}

int main(int count, char **names) {
  static DLTensor tensors[MOST_TENSORS];
  static int64_t shapes[MOST_TENSORS][MOST_DIMENSIONS];
  static size_t bytes[MOST_TENSORS];
  static TVMFFIAny arguments[MOST_TENSORS];
  TVMFFIAny result = {0};
  int32_t header[3], read = 0; /* type code, bits, dimensions */
  need(count == 3);
  FILE *in = fopen(names[1], "rb");
  need(in != NULL);
  while (fread(header, sizeof header, 1, in) == 1) {
    DLTensor *tensor = &tensors[read];
    need(read < MOST_TENSORS && header[2] <= MOST_DIMENSIONS);
    tensor->device.device_type = kDLCPU;
    tensor->dtype = (DLDataType){(uint8_t)header[0], (uint8_t)header[1], 1};
    tensor->ndim = header[2];
    tensor->shape = shapes[read];
    need(fread(shapes[read], sizeof(int64_t), (size_t)header[2], in) == (size_t)header[2]);
    bytes[read] = (size_t)header[1] / 8;
    for (int i = 0; i < header[2]; i++) bytes[read] *= (size_t)shapes[read][i];
    need(posix_memalign(&tensor->data, 64, bytes[read] + 64) == 0);
    need(fread(tensor->data, 1, bytes[read], in) == bytes[read]);
    arguments[read].type_index = kTVMFFIDLTensorPtr;
    arguments[read++].v_ptr = tensor;
  }
  need(__tvm_ffi_main(NULL, arguments, read, &result) == 0);
  FILE *out = fopen(names[2], "wb");
  need(out != NULL);
  for (int32_t i = 0; i < read; i++) need(fwrite(tensors[i].data, 1, bytes[i], out) == bytes[i]);
  return fclose(out) == 0 ? 0 : 2;
}
