/* Tensors in a manifest: what a function takes and gives, and what lies in weights.bin and golden.bin. */
#ifndef EDGEQ_SPECS_H
#define EDGEQ_SPECS_H

#include "source.h"
#include "json.h"

/* Fits a size_t, also where an address has 32 bits; LARGEST_BYTES likewise. */
#define LARGEST_SIZE (SIZE_MAX > UINT32_MAX ? (int64_t)1 << 40 : (int64_t)INT32_MAX)
#define LARGEST_VALUE ((int64_t)1 << 62)
/* Of a file, a tensor or a place in a file. */
#define LARGEST_BYTES (SIZE_MAX > UINT32_MAX ? (int64_t)1 << 46 : (int64_t)INT32_MAX)

typedef edgeq_tensor_info Spec;

/* Bytes of an element. */
size_t element_bytes(int32_t type);

const char *element_name(int32_t type);

/* Bytes of a tensor of that type and shape; fails with `status`, naming `what`, if they do not fit memory. */
size_t tensor_bytes(const Memory *memory, const edgeq_tensor *tensor, const char *what, edgeq_status status);

/* The list `key` of inputs, outputs or caches; their names are copied to `memory`. */
Spec *read_specs(Memory *memory, const Json *json, const JsonValue *parent, const char *key, size_t *count);

/* The type in `table`, by name. */
int32_t read_type(const Json *json, const JsonValue *table);

/* The list `key` of tensors that lie in `data`. With `specs`, of which there are `*count`, names, types and shapes must
 * fit those. */
edgeq_tensor *read_stored(Memory *memory, const Json *json, const JsonValue *parent, const char *key, Mapping data,
                          const Spec *specs, size_t *count);

#endif
