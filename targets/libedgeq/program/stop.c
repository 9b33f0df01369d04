#include "stop.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* File names and arguments reach the terminal: control characters are escaped, as the library does it. */
static void print_escaped(const char *text) {
  for (; *text != '\0'; text++) {
    unsigned char byte = (unsigned char)*text;
    if (byte < 0x20 || byte == 0x7F) {
      fprintf(stderr, "\\x%02x", byte);
    } else {
      fputc(byte, stderr);
    }
  }
}

_Noreturn void stop(int code, const char *format, ...) {
  char message[2048];
  va_list arguments;
  fflush(stdout);
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  fputs("edgeq-run: ", stderr);
  print_escaped(message);
  fputc('\n', stderr);
  exit(code);
}

int exit_code(edgeq_status status) { return status == EDGEQ_USAGE ? EXIT_USAGE : EXIT_FAULT; }

void check(edgeq_status status, const edgeq_session *session) {
  if (status != EDGEQ_OK) stop(exit_code(status), "%s", edgeq_session_error(session));
}

void *reserve(size_t count, size_t size) {
  void *memory = calloc(count > 0 ? count : 1, size > 0 ? size : 1);
  if (memory == NULL) stop(EXIT_FAULT, "out of memory (%zu items of %zu bytes)", count, size);
  return memory;
}

void *grow(void *old, size_t size) {
  void *memory = realloc(old, size);
  if (memory == NULL) stop(EXIT_FAULT, "out of memory (%zu bytes)", size);
  return memory;
}
