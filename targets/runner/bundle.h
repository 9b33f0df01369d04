/* A bundle on disk: its manifest, checked, and its data files, mapped. */
#ifndef EDGEQ_BUNDLE_H
#define EDGEQ_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  MAX_DIMENSIONS = 8,
  LANES = 16,         /* neighbouring keys of one vector in a key cache */
  DECODER_INPUTS = 3, /* input_ids [batch, sequence], past_lengths [batch], new_lengths [batch], all int64 */
};

typedef struct {
  const char *name;
  uint8_t code; /* DLDataTypeCode */
  uint8_t bits;
} ElementType;

/* A tensor in memory: C order, no gaps. */
typedef struct {
  const ElementType *type;
  int dimensions;
  int64_t shape[MAX_DIMENSIONS];
  const void *data;
  size_t bytes;
} Array;

/* An input or output of the model. A size is a number, or a name that stands for one chosen at each call. */
typedef struct {
  const char *name;
  const ElementType *type;
  int dimensions;
  int64_t shape[MAX_DIMENSIONS];         /* -1 where it is a name */
  const char *size_names[MAX_DIMENSIONS]; /* NULL where it is a number */
  bool has_minimum, has_maximum, has_default;
  int64_t minimum, maximum, fallback;
} Spec;

/* Inputs of one call and the outputs it must give: as many as the model's. */
typedef struct {
  Array *inputs, *outputs;
} GoldenRun;

typedef struct {
  char *folder; /* absolute */
  const char *task;
  const char *pooling;
  bool normalize;
  const char **labels;
  size_t label_count;
  int64_t max_length; /* 0 if nothing limits it */
  Spec *inputs, *outputs;
  size_t input_count, output_count;
  Array *weights;
  size_t weight_count;
  GoldenRun *golden; /* one; for a decoder, calls that follow each other on one state */
  size_t golden_count;
  int64_t context; /* most tokens of a sequence; 0 for models that make no text */
  int64_t *end_ids;
  size_t end_count;
  Spec *state; /* caches: `main` takes them between inputs and weights and changes them */
  size_t state_count;
} Bundle;

/* Reads the manifest in `folder`, checks that this processor is the target, compares every file's size (and
 * SHA-256 if `verify`) with it, and maps weights.bin and golden.bin read-only. Stops the program if anything does not fit. */
void bundle_open(Bundle *bundle, const char *folder, bool verify);

/* Element type by the manifest's name, or NULL. */
const ElementType *element_type(const char *name);

/* Bytes of an array of that type and shape; stops the program, naming `what`, if they do not fit memory. */
size_t array_bytes(const ElementType *type, int dimensions, const int64_t *shape, const char *what);

/* Path of a file in the bundle. */
char *bundle_file(const Bundle *bundle, const char *name);

#endif
