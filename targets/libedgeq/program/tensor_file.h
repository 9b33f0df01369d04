/* Files of input and output sets, through which Python drives edgeq-run. All integers are little-endian:
 *   "EQT1", uint32 number of sets; then for each set:
 *   where the bundle reads an encoder input: uint32 function (0 main, 1 encode);
 *   for each input (or output) in the manifest's order: uint32 dimensions, that many int64 sizes, the data. */
#ifndef EDGEQ_TENSOR_FILE_H
#define EDGEQ_TENSOR_FILE_H

#include <stdio.h>

#include "edgeq.h"
#include "input_file.h"

typedef struct {
  const edgeq_model *model;
  InputFile file;
  size_t at;
  const char *path;
  uint32_t sets;
} TensorReader;

TensorReader open_tensors(const char *path, const edgeq_model *model);

/* Function and inputs of the next set; stops the program if the file is too short for it. */
edgeq_tensor *next_inputs(TensorReader *reader, int32_t *function);

void release_inputs(const edgeq_model *model, int32_t function, edgeq_tensor *inputs);

/* Stops the program if anything follows the last set. */
void close_tensors(const TensorReader *reader);

/* Writes the header and one set of such a file; ferror() tells whether that failed. */
void write_tensors_header(FILE *file, uint32_t sets);
void write_tensors(FILE *file, const edgeq_model *model, int32_t function, const edgeq_tensor *outputs);

#endif
