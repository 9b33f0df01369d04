/* Inputs of the model: made from token ids, read from a file of tensors, and checked before compiled code,
 * which trusts them, sees them. */
#ifndef EDGEQ_INPUTS_H
#define EDGEQ_INPUTS_H

#include <stdio.h>

#include "bundle.h"
#include "files.h"

/* Token ids of one text. */
typedef struct {
  int64_t *ids;
  size_t count;
  size_t line; /* counted from 1 */
} Text;

/* Reads a file with one text a line: token ids, separated by spaces or tabs. */
Text *read_texts(const char *path, size_t *count);

/* Inputs for a batch of one text: `input_ids` from the text, every other input from its default. */
Array *inputs_from_text(const Bundle *bundle, const Text *text);

/* Frees what inputs_from_text or next_inputs returned. */
void inputs_release(const Bundle *bundle, Array *inputs);

/* Stops the program, naming `where`, unless types, shapes and values are what the manifest allows. */
void check_inputs(const Bundle *bundle, const Array *inputs, const char *where);

/* A file of input sets. All integers are little-endian:
 *   "EQT1", uint32 number of sets; then for each set and each input (or output) in the manifest's order:
 *   uint32 dimensions, that many int64 sizes, the data. */
typedef struct {
  Mapping file;
  size_t at;
  const char *path;
  uint32_t sets;
} TensorReader;

TensorReader open_tensors(const char *path);

/* The next set; stops the program if the file is too short for it. */
Array *next_inputs(TensorReader *reader, const Bundle *bundle);

/* Stops the program if anything follows the last set. */
void close_tensors(const TensorReader *reader);

/* Writes the header and one set of such a file. */
void write_tensors_header(FILE *file, uint32_t sets);
void write_tensors(FILE *file, const Array *arrays, size_t count);

#endif
