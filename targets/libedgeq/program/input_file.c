#include "input_file.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "stop.h"
#include "system.h"

InputFile read_file(const char *path) {
  InputFile content = {NULL, 0};
  FILE *file = open_file(path, "rb");
  if (file == NULL) stop(EXIT_USAGE, "cannot open %s: %s", path, strerror(errno));
  intmax_t bytes = regular_file_bytes(file);
  if (bytes < 0) stop(EXIT_USAGE, "%s is not a file", path);
  if (bytes >= PTRDIFF_MAX) stop(EXIT_USAGE, "%s is too large for the memory of this machine", path);
  content.data = reserve((size_t)bytes + 1, 1);
  content.size = fread(content.data, 1, (size_t)bytes, file); /* less if it became shorter meanwhile */
  if (ferror(file)) stop(EXIT_USAGE, "cannot read %s: %s", path, strerror(errno));
  fclose(file);
  return content;
}

static InputFile read_standard_input(void) {
  InputFile content = {reserve(1, 1), 0};
  char part[4096];
  for (size_t count; (count = fread(part, 1, sizeof part, stdin)) > 0;) {
    content.data = grow(content.data, content.size + count + 1);
    memcpy(content.data + content.size, part, count);
    content.size += count;
    content.data[content.size] = '\0';
  }
  if (ferror(stdin)) stop(EXIT_USAGE, "cannot read standard input: %s", strerror(errno));
  return content;
}

InputFile read_text_file(const char *path) {
  InputFile content = strcmp(path, "-") == 0 ? read_standard_input() : read_file(path);
  if (content.size >= 3 && memcmp(content.data, "\xEF\xBB\xBF", 3) == 0) {
    content.data += 3;
    content.size -= 3;
  }
  return content;
}
