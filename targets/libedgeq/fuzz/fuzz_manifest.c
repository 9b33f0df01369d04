/* Manifests: of a model whose kernels are all called "k", and are the same one, which writes every byte of the tensors that it gets, but for
 * weights. So a plan that reaches outside of its memory is seen. */
#include <stdlib.h>

#include "../library/bundle.h"
#include "../library/sha256.h"
#include "fuzz.h"

enum { WEIGHTS = 1 << 16 };
static _Alignas(64) char weights[WEIGHTS];
static void *launch, *allocate_workspace, *release_workspace;

static int kernel(void *self, const KernelValue *arguments, int32_t count, KernelValue *result) {
  (void)self, (void)result;
  for (int32_t i = 0; i < count; i++) {
    if (arguments[i].kind != KERNEL_TENSOR) continue;
    const KernelTensor *tensor = arguments[i].pointer;
    char *data = tensor->data;
    size_t bytes = tensor->bits / 8u;
    for (int at = 0; at < tensor->rank; at++) bytes *= (size_t)tensor->shape[at];
    if (data >= weights && data < weights + WEIGHTS) {
      volatile char last = data[bytes - 1];
      (void)last;
    } else {
      memset(data, 1, bytes);
    }
  }
  return 0;
}

static void put(char *out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) out[i] = (char)(value >> (8 * i));
}

/* A packed bundle of the manifest and of files of zeros, whatever it says of their sizes. */
static char *pack(const uint8_t *data, size_t size, size_t *whole) {
  const struct {
    const char *name;
    const void *data;
    size_t size;
  } files[] = {{"manifest.json", data, size}, {"manifest.sha256", NULL, 65}, {"weights.bin", weights, WEIGHTS},
               {"golden.bin", weights, WEIGHTS}};
  char digest[1][SHA256_HEX], table[512];
  size_t count = sizeof files / sizeof *files, at = 0, place = 4096;
  sha256_hex(&(Message){data, size}, 1, digest);
  digest[0][64] = '\n';
  *whole = 4096;
  for (size_t i = 0; i < count; i++) *whole += (files[i].size + 4095) / 4096 * 4096;
  char *out = aligned_alloc(64, *whole);
  if (out == NULL) abort();
  memset(out, 0, *whole);
  for (size_t i = 0; i < count; i++) {
    put(table + at, place, 8);
    put(table + at + 8, files[i].size, 8);
    put(table + at + 16, strlen(files[i].name), 2);
    memcpy(table + at + 18, files[i].name, strlen(files[i].name));
    at += 18 + strlen(files[i].name);
    if (files[i].size > 0) memcpy(out + place, files[i].data != NULL ? files[i].data : digest[0], files[i].size);
    place += (files[i].size + 4095) / 4096 * 4096;
  }
  memcpy(out, "EDGEQPK1", 8);
  put(out + 8, 1, 4);
  put(out + 12, count, 4);
  put(out + 16, *whole, 8);
  put(out + 24, at, 8);
  sha256_hex(&(Message){table, at}, 1, digest);
  for (int i = 0; i < 32; i++) {
    char hex[3] = {digest[0][2 * i], digest[0][2 * i + 1], 0};
    out[32 + i] = (char)strtoul(hex, NULL, 16);
  }
  memcpy(out + 64, table, at);
  return out;
}

static void use(const edgeq_model *model) {
  edgeq_session *session = NULL;
  const edgeq_session_options options = {.size = sizeof options, .threads = 1};
  if (edgeq_session_open(model, &options, &session) == EDGEQ_OK) {
    for (int32_t function = 0; function < EDGEQ_FUNCTIONS; function++) {
      size_t count = edgeq_input_count(model, function);
      if (count == 0 || count > 16) continue;
      edgeq_tensor inputs[16] = {0}, *outputs = calloc(edgeq_output_count(model, function) + 1, sizeof *outputs);
      int64_t values[64];
      for (int64_t sequence = 1; sequence < 4; sequence += 2) {
        for (size_t i = 0; i < count; i++) {
          const edgeq_tensor_info *info = edgeq_input_info(model, function, i);
          inputs[i] = (edgeq_tensor){.type = info->type, .rank = info->rank, .data = values};
          int64_t elements = 1;
          for (int at = 0; at < info->rank; at++) {
            bool is_batch = info->dimensions[at] != NULL && strcmp(info->dimensions[at], "batch") == 0;
            inputs[i].shape[at] = info->shape[at] > 0 ? info->shape[at] : is_batch ? 2 : sequence;
            if (__builtin_mul_overflow(elements, inputs[i].shape[at], &elements) || elements > 64) inputs[i].data = NULL;
          }
        }
        uint64_t bytes = 0;
        /* Sizes that the system would give only in name make the run slow, and say nothing. */
        if (edgeq_arena_bytes(session, function, inputs, &bytes) == EDGEQ_OK && bytes < 1 << 22) {
          /* Zeros, and ones where a model takes no zeros, as of lengths. */
          for (int64_t value = 0; value < 2; value++) {
            for (size_t i = 0; i < sizeof values / sizeof *values; i++) values[i] = value;
            if (edgeq_run(session, function, inputs, outputs) == EDGEQ_OK) break;
          }
        }
      }
      free(outputs);
    }
  }
  edgeq_session_close(session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const edgeq_kernel kernels[] = {{"k", (void *)(uintptr_t)kernel},
                                  {"__TVMBackendParallelLaunch", &launch},
                                  {"__TVMBackendAllocWorkspace", &allocate_workspace},
                                  {"__TVMBackendFreeWorkspace", &release_workspace}};
  edgeq_model *model = NULL;
  size_t whole = 0;
  const edgeq_open_options options = {
      .size = sizeof options, .skip_digests = 1, .threads = 1, .kernels = kernels, .kernel_count = 4};
  char *packed = pack(data, size, &whole);
  if (edgeq_open_memory(packed, whole, &options, &model) == EDGEQ_OK) {
    use(model);
  } else if (*edgeq_error(model) == '\0') {
    abort();
  }
  edgeq_close(model);
  free(packed);
  return 0;
}
