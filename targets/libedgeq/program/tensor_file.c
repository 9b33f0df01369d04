#include "tensor_file.h"

#include <errno.h>
#include <string.h>

#include "fail.h"

static void take(TensorReader *reader, void *out, size_t bytes) {
  if (bytes > reader->file.size - reader->at) fail(EXIT_USAGE, "%s is cut off", reader->path);
  memcpy(out, reader->file.data + reader->at, bytes);
  reader->at += bytes;
}

TensorReader open_tensors(const char *path, const Bundle *bundle) {
  TensorReader reader = {bundle, map_file(path, EXIT_USAGE), 0, path, 0};
  char magic[4];
  take(&reader, magic, sizeof magic);
  if (memcmp(magic, "EQT1", sizeof magic) != 0) fail(EXIT_USAGE, "%s is no file of tensors", path);
  take(&reader, &reader.sets, sizeof reader.sets);
  return reader;
}

Array *next_inputs(TensorReader *reader, FunctionName *name) {
  uint32_t number = MAIN;
  if (reads_source(reader->bundle)) take(reader, &number, sizeof number);
  if (number >= FUNCTIONS) fail(EXIT_USAGE, "%s: a set is for function %u, which no bundle has", reader->path, number);
  *name = (FunctionName)number;
  const Function *function = &reader->bundle->functions[*name];
  Array *inputs = allocate(function->input_count, sizeof *inputs);
  for (size_t i = 0; i < function->input_count; i++) {
    const Spec *spec = &function->inputs[i];
    uint32_t dimensions = 0;
    take(reader, &dimensions, sizeof dimensions);
    if (dimensions > MAX_DIMENSIONS) fail(EXIT_USAGE, "%s: '%s' has too many dimensions", reader->path, spec->name);
    inputs[i].type = spec->type;
    inputs[i].dimensions = (int)dimensions;
    take(reader, inputs[i].shape, dimensions * sizeof(int64_t));
    inputs[i].bytes = array_bytes(spec->type, (int)dimensions, inputs[i].shape, spec->name);
    if (inputs[i].bytes > reader->file.size - reader->at) fail(EXIT_USAGE, "%s is cut off", reader->path);
    void *data = allocate_data(inputs[i].bytes);
    take(reader, data, inputs[i].bytes);
    inputs[i].data = data;
  }
  return inputs;
}

void close_tensors(const TensorReader *reader) {
  if (reader->at != reader->file.size) fail(EXIT_USAGE, "%s is longer than its sets", reader->path);
}

static void put(FILE *file, const void *data, size_t bytes) {
  if (fwrite(data, 1, bytes, file) != bytes) fail(EXIT_FAULT, "cannot write the outputs: %s", strerror(errno));
}

void write_tensors_header(FILE *file, uint32_t sets) {
  put(file, "EQT1", 4);
  put(file, &sets, sizeof sets);
}

void write_tensors(FILE *file, const Bundle *bundle, FunctionName name, const Array *outputs) {
  uint32_t number = name;
  if (reads_source(bundle)) put(file, &number, sizeof number);
  for (size_t i = 0; i < bundle->functions[name].output_count; i++) {
    uint32_t dimensions = (uint32_t)outputs[i].dimensions;
    put(file, &dimensions, sizeof dimensions);
    put(file, outputs[i].shape, dimensions * sizeof(int64_t));
    put(file, outputs[i].data, outputs[i].bytes);
  }
}
