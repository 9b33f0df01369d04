/* What the harnesses share: a failure of the library is one of the expected ends. */
#ifndef EDGEQ_FUZZ_H
#define EDGEQ_FUZZ_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../library/memory.h"

typedef struct {
  Memory *memory;
  const char *data; /* a copy of just these bytes, so that the sanitizer sees a byte too much */
  size_t size;
} FuzzInput;

/* Runs `body` on a copy of the bytes, aligned like a mapped file, and gives back all memory that it took. */
static inline void fuzz_guarded(const uint8_t *data, size_t size, void (*body)(void *input)) {
  Failure failure;
  Memory memory = {.allocator = DEFAULT_ALLOCATOR, .failure = &failure};
  char *copy = NULL;
  if (posix_memalign((void **)&copy, 64, size > 0 ? size : 1) != 0) return;
  if (size > 0) memcpy(copy, data, size);
  FuzzInput input = {&memory, copy, size};
  failure.sentence[0] = '\0';
  if (guarded(&failure, body, &input) != EDGEQ_OK && failure.sentence[0] == '\0') abort();
  release_all(&memory);
  free(copy);
}

#endif
