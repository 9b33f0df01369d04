#include "buffer.h"

#include <stdlib.h>
#include <string.h>

#include "fail.h"

void buffer_add(Buffer *buffer, const void *data, size_t size) {
  if (size == 0) return;
  if (buffer->room - buffer->size < size) {
    buffer->room = (buffer->size + size) * 2;
    buffer->data = realloc(buffer->data, buffer->room);
    if (buffer->data == NULL) fail(EXIT_FAULT, "out of memory (%zu bytes)", buffer->room);
  }
  memcpy(buffer->data + buffer->size, data, size);
  buffer->size += size;
}

void buffer_release(Buffer *buffer) {
  free(buffer->data);
  *buffer = (Buffer){0};
}
