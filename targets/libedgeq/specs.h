/* Tensors in a manifest: what a function takes and gives, and what lies in weights.bin and golden.bin. */
#ifndef EDGEQ_SPECS_H
#define EDGEQ_SPECS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "files.h"
#include "json.h"

enum { MAX_DIMENSIONS = 8 };
/* Fits a size_t, also where an address has 32 bits; LARGEST_BYTES likewise. */
#define LARGEST_SIZE (SIZE_MAX > UINT32_MAX ? (int64_t)1 << 40 : (int64_t)INT32_MAX)
#define LARGEST_VALUE ((int64_t)1 << 62)
/* Of a file, a tensor or a place in a file. */
#define LARGEST_BYTES (SIZE_MAX > UINT32_MAX ? (int64_t)1 << 46 : (int64_t)INT32_MAX)

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

/* Element type by the manifest's name, or NULL. */
const ElementType *element_type(const char *name);

/* Bytes of an array of that type and shape; stops the program, naming `what`, if they do not fit memory. */
size_t array_bytes(const ElementType *type, int dimensions, const int64_t *shape, const char *what);

/* The list `key` of inputs, outputs or caches, at least one; `file` names the manifest. */
Spec *read_specs(const JsonValue *root, const char *key, size_t *count, const char *file);

/* The list `key` of tensors that lie in `data`. With `specs`, of which there are `*count`, names, types and shapes must
 * fit those. */
Array *read_stored(const JsonValue *parent, const char *key, Mapping data, const Spec *specs, size_t *count,
                   const char *file);

#endif
