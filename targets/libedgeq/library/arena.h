/* Places of tensors in one piece of memory. */
#ifndef EDGEQ_ARENA_H
#define EDGEQ_ARENA_H

#include <stdint.h>

#include "memory.h"

/* Memory that is needed from step `first` to step `last`. */
typedef struct {
  size_t bytes; /* 0: needs no place */
  uint32_t first, last;
  size_t offset; /* a multiple of EDGEQ_ALIGNMENT; what place_tensors finds */
} Place;

/* Gives every tensor a place, so that no two that are needed at the same time overlap: the largest first, each at the
 * lowest offset that is free. Returns the bytes of the whole. Fails
 * if they do not fit memory. */
size_t place_tensors(Memory *memory, Place *places, size_t count);

#endif
