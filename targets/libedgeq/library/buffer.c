#include "buffer.h"

#include <stdint.h>
#include <string.h>

void buffer_add(Buffer *buffer, const void *data, size_t size) {
  if (size == 0) return;
  if (buffer->room - buffer->size < size) {
    if (size > SIZE_MAX / 4 - buffer->size) fail(buffer->memory, EDGEQ_NO_MEMORY, "out of memory (%zu bytes)", size);
    size_t room = (buffer->size + size) * 2;
    buffer->data = reallocate(buffer->memory, buffer->data, buffer->size, room);
    buffer->room = room;
  }
  memcpy(buffer->data + buffer->size, data, size);
  buffer->size += size;
}

void buffer_release(Buffer *buffer) {
  release(buffer->memory, buffer->data);
  *buffer = (Buffer){.memory = buffer->memory};
}
