#include "own_bundle.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

enum { TRAILER = 32 };

static bool has_bundle(const char *path) {
  char trailer[TRAILER] = {0};
  FILE *file = fopen(path, "rb");
  if (file == NULL) return false;
  size_t count = fseek(file, -TRAILER, SEEK_END) == 0 ? fread(trailer, 1, sizeof trailer, file) : 0;
  fclose(file);
  return count == sizeof trailer && memcmp(trailer, "EDGEQEND", 8) == 0;
}

const char *own_bundle(void) {
#if defined(__linux__)
  static char path[4096];
  ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length > 0) return has_bundle(path) ? path : NULL;
  /* Without /proc: as it was started. */
  const char *name = (const char *)getauxval(AT_EXECFN);
  return name != NULL && has_bundle(name) ? name : NULL;
#else
  return NULL;
#endif
}
