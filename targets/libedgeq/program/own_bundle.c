#include "own_bundle.h"

#include <stdbool.h>
#include <string.h>

#include "system.h"

enum { TRAILER = 32 };

static bool has_bundle(const char *path) {
  char trailer[TRAILER] = {0};
  FILE *file = open_file(path, "rb");
  if (file == NULL) return false;
  size_t count = fseek(file, -TRAILER, SEEK_END) == 0 ? fread(trailer, 1, sizeof trailer, file) : 0;
  fclose(file);
  return count == sizeof trailer && memcmp(trailer, "EDGEQEND", 8) == 0;
}

const char *own_bundle(void) {
  const char *path = program_path();
  return path != NULL && has_bundle(path) ? path : NULL;
}
