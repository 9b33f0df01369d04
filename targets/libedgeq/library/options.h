/* Structures of options that callers give. */
#ifndef EDGEQ_OPTIONS_H
#define EDGEQ_OPTIONS_H

#include <stddef.h>
#include <string.h>

/* Copies what a caller gave of a structure that begins with its size; what it does not have stays as it is. NULL gives
 * nothing. */
static inline void take_options(void *own, size_t own_size, const void *given) {
  size_t size = 0;
  if (given == NULL) return;
  memcpy(&size, given, sizeof size);
  memcpy(own, given, size < own_size ? size : own_size);
}

#endif
