#include "fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void fail(int code, const char *format, ...) {
  va_list arguments;
  fflush(stdout);
  fputs("edgeq-run: ", stderr);
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(code);
}

void *allocate(size_t count, size_t size) {
  void *memory = calloc(count > 0 ? count : 1, size > 0 ? size : 1);
  if (memory == NULL) fail(EXIT_FAULT, "out of memory (%zu items of %zu bytes)", count, size);
  return memory;
}

void *allocate_data(size_t bytes) {
  void *memory = NULL;
  if (posix_memalign(&memory, DATA_ALIGNMENT, bytes > 0 ? bytes : 1) != 0) {
    fail(EXIT_FAULT, "out of memory (%zu bytes)", bytes);
  }
  memset(memory, 0, bytes);
  return memory;
}
