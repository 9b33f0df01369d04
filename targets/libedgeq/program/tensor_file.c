#include "tensor_file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "stop.h"

static void take(TensorReader *reader, void *out, size_t bytes) {
  if (bytes > reader->file.size - reader->at) stop(EXIT_USAGE, "%s is cut off", reader->path);
  memcpy(out, reader->file.data + reader->at, bytes);
  reader->at += bytes;
}

static bool has_encode(const edgeq_model *model) { return edgeq_input_count(model, EDGEQ_ENCODE) > 0; }

TensorReader open_tensors(const char *path, const edgeq_model *model) {
  TensorReader reader = {model, read_file(path), 0, path, 0};
  char magic[4];
  take(&reader, magic, sizeof magic);
  if (memcmp(magic, "EQT1", sizeof magic) != 0) stop(EXIT_USAGE, "%s is no file of tensors", path);
  take(&reader, &reader.sets, sizeof reader.sets);
  return reader;
}

/* Bytes of a tensor; stops the program if they do not fit memory. */
static size_t bytes_of(const TensorReader *reader, const edgeq_tensor_info *info, const edgeq_tensor *tensor) {
  static const size_t sizes[] = {[EDGEQ_FLOAT32] = 4, [EDGEQ_FLOAT16] = 2, [EDGEQ_INT64] = 8,
                                 [EDGEQ_INT32] = 4,   [EDGEQ_INT16] = 2,   [EDGEQ_UINT16] = 2,
                                 [EDGEQ_INT8] = 1,    [EDGEQ_UINT8] = 1,   [EDGEQ_BOOL] = 1};
  size_t bytes = sizes[info->type];
  for (int at = 0; at < tensor->rank; at++) {
    int64_t size = tensor->shape[at];
    bool fits = size > 0 && (uint64_t)size <= SIZE_MAX && !__builtin_mul_overflow(bytes, (size_t)size, &bytes);
    if (!fits) stop(EXIT_USAGE, "%s: the shape of '%s' is not possible", reader->path, info->name);
  }
  return bytes;
}

edgeq_tensor *next_inputs(TensorReader *reader, int32_t *function) {
  uint32_t number = EDGEQ_MAIN;
  if (has_encode(reader->model)) take(reader, &number, sizeof number);
  if (number >= EDGEQ_FUNCTIONS) stop(EXIT_USAGE, "%s: a set is for function %u, which no bundle has", reader->path, number);
  *function = (int32_t)number;
  size_t count = edgeq_input_count(reader->model, *function);
  edgeq_tensor *inputs = reserve(count, sizeof *inputs);
  for (size_t i = 0; i < count; i++) {
    const edgeq_tensor_info *info = edgeq_input_info(reader->model, *function, i);
    uint32_t rank = 0;
    take(reader, &rank, sizeof rank);
    if (rank > EDGEQ_MAX_RANK) stop(EXIT_USAGE, "%s: '%s' has too many dimensions", reader->path, info->name);
    inputs[i].type = info->type;
    inputs[i].rank = (int32_t)rank;
    take(reader, inputs[i].shape, rank * sizeof(int64_t));
    inputs[i].bytes = bytes_of(reader, info, &inputs[i]);
    if (inputs[i].bytes > reader->file.size - reader->at) stop(EXIT_USAGE, "%s is cut off", reader->path);
    inputs[i].data = reserve(inputs[i].bytes, 1);
    take(reader, inputs[i].data, inputs[i].bytes);
  }
  return inputs;
}

void release_inputs(const edgeq_model *model, int32_t function, edgeq_tensor *inputs) {
  for (size_t i = 0; i < edgeq_input_count(model, function); i++) free(inputs[i].data);
  free(inputs);
}

void close_tensors(const TensorReader *reader) {
  if (reader->at != reader->file.size) stop(EXIT_USAGE, "%s is longer than its sets", reader->path);
}

/* The file remembers a failure. */
static void put(FILE *file, const void *data, size_t bytes) {
  if (ferror(file) == 0) fwrite(data, 1, bytes, file);
}

void write_tensors_header(FILE *file, uint32_t sets) {
  put(file, "EQT1", 4);
  put(file, &sets, sizeof sets);
}

void write_tensors(FILE *file, const edgeq_model *model, int32_t function, const edgeq_tensor *outputs) {
  uint32_t number = (uint32_t)function;
  if (has_encode(model)) put(file, &number, sizeof number);
  for (size_t i = 0; i < edgeq_output_count(model, function); i++) {
    uint32_t rank = (uint32_t)outputs[i].rank;
    put(file, &rank, sizeof rank);
    put(file, outputs[i].shape, rank * sizeof(int64_t));
    put(file, outputs[i].data, outputs[i].bytes);
  }
}
