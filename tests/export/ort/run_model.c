/* Runs one model in ONNX Runtime with the operator library, for another processor: ONNX Runtime's Python package cannot
 * be emulated without a whole Python of that processor. Functions are taken by their place in OrtApi.
 *
 * run_model ONNXRUNTIME LIBRARY MODEL INPUT N K ROWS OUTPUT, with x float32 [1, ROWS, K] and ids int64 [1, ROWS] in
 * INPUT, and y float32 [1, ROWS, N] and z float32 [1, ROWS, K] in OUTPUT. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef void Status;
typedef struct {
  void *const *(*get)(uint32_t version);
} Base;

static void *const *api;

static void check(Status *status, const char *what) {
  if (status == NULL) return;
  fprintf(stderr, "%s: %s\n", what, ((const char *(*)(const Status *))api[2])(status));
  exit(1);
}

#define CALL(slot, types, ...) check(((Status * (*) types) api[slot])(__VA_ARGS__), #slot)

static void *tensor(void *memory, void *data, size_t bytes, const int64_t *sizes, size_t rank, int type) {
  void *value = NULL;
  CALL(49, (const void *, void *, size_t, const int64_t *, size_t, int, void **), memory, data, bytes, sizes, rank, type,
       &value);
  return value;
}

static void write_floats(FILE *out, void *value, int64_t count) {
  float *data = NULL;
  CALL(51, (void *, float **), value, &data);
  if (fwrite(data, sizeof *data, (size_t)count, out) != (size_t)count) exit(3);
}

int main(int count, char **names) {
  if (count != 9) return 2;
  void *runtime = dlopen(names[1], RTLD_NOW);
  Base *(*base)(void) = runtime == NULL ? NULL : (Base * (*)(void)) dlsym(runtime, "OrtGetApiBase");
  if (base == NULL) return 2;
  api = base()->get(17);
  int64_t n = atoll(names[5]), k = atoll(names[6]), rows = atoll(names[7]);
  float *x = malloc((size_t)(rows * k) * sizeof *x);
  int64_t *ids = malloc((size_t)rows * sizeof *ids);
  FILE *in = fopen(names[4], "rb");
  if (x == NULL || ids == NULL || in == NULL) return 3;
  if (fread(x, sizeof *x, (size_t)(rows * k), in) != (size_t)(rows * k)) return 3;
  if (fread(ids, sizeof *ids, (size_t)rows, in) != (size_t)rows) return 3;
  void *environment, *options, *library, *session, *memory;
  CALL(3, (int, const char *, void **), 3, "test", &environment);
  CALL(10, (void **), &options);
  CALL(24, (void *, int), options, 2);
  CALL(29, (void *, const char *, void **), options, names[2], &library);
  CALL(7, (const void *, const char *, const void *, void **), environment, names[3], options, &session);
  CALL(69, (int, int, void **), 1, 0, &memory);
  const int64_t sizes[] = {1, rows, k};
  const void *inputs[] = {tensor(memory, x, (size_t)(rows * k) * sizeof *x, sizes, 3, 1),
                          tensor(memory, ids, (size_t)rows * sizeof *ids, sizes, 2, 7)};
  const char *input_names[] = {"x", "ids"}, *output_names[] = {"y", "z"};
  void *outputs[] = {NULL, NULL};
  CALL(9, (void *, const void *, const char *const *, const void *const *, size_t, const char *const *, size_t, void **),
       session, NULL, input_names, inputs, 2, output_names, 2, outputs);
  FILE *out = fopen(names[8], "wb");
  if (out == NULL) return 3;
  write_floats(out, outputs[0], rows * n);
  write_floats(out, outputs[1], rows * k);
  return fclose(out) == 0 ? 0 : 3;
}
