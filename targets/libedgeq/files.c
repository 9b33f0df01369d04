#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"

void unmap_file(Mapping mapping) {
  if (mapping.size > 0) munmap((void *)(uintptr_t)mapping.data, mapping.size);
}

void forget_pages(Mapping mapping) {
  /* They stay in the system's cache, and come back when they are read. */
  if (mapping.size > 0) madvise((void *)(uintptr_t)mapping.data, mapping.size, MADV_DONTNEED);
}

Mapping map_file(const char *path, int code) {
  Mapping mapping = {NULL, 0};
  struct stat status;
  int handle = open(path, O_RDONLY | O_CLOEXEC);
  if (handle < 0) fail(code, "cannot open %s: %s", path, strerror(errno));
  if (fstat(handle, &status) != 0 || !S_ISREG(status.st_mode)) fail(code, "%s is not a file", path);
  if ((uintmax_t)status.st_size > PTRDIFF_MAX) fail(code, "%s is too large for the memory of this machine", path);
  mapping.size = (size_t)status.st_size;
  if (mapping.size > 0) {
    void *memory = mmap(NULL, mapping.size, PROT_READ, MAP_PRIVATE, handle, 0);
    if (memory == MAP_FAILED) fail(code, "cannot map %s: %s", path, strerror(errno));
    mapping.data = memory;
  }
  close(handle);
  return mapping;
}
