/* Bytes that grow. */
#ifndef EDGEQ_BUFFER_H
#define EDGEQ_BUFFER_H

#include "memory.h"

typedef struct {
  Memory *memory; /* where it grows */
  char *data;     /* NULL as long as nothing was added */
  size_t size, room;
} Buffer;

/* Appends `size` bytes; fails if there is no memory. */
void buffer_add(Buffer *buffer, const void *data, size_t size);

void buffer_release(Buffer *buffer);

#endif
