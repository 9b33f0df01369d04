#include "mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file while it is being opened, and then its mapping. */
typedef struct {
  Mapping mapping;
  int handle; /* -1 once it is closed */
} OpenFile;

static void close_file(void *file) {
  OpenFile *open_file = file;
  if (open_file->handle >= 0) close(open_file->handle);
  if (open_file->mapping.size > 0) munmap((void *)(uintptr_t)open_file->mapping.data, open_file->mapping.size);
}

const Mapping *map_regular_file(Memory *memory, int folder, const char *name, const char *path, size_t most,
                                edgeq_status status) {
  struct stat found;
  OpenFile *file = allocate_with(memory, sizeof *file, close_file);
  file->handle = openat(folder < 0 ? AT_FDCWD : folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file->handle < 0) fail(memory, status, "cannot open %s: %s", path, strerror(errno));
  if (fstat(file->handle, &found) != 0 || !S_ISREG(found.st_mode)) fail(memory, status, "%s is not a file", path);
  if ((uintmax_t)found.st_size > most) {
    fail(memory, status, "%s has %ju bytes, at most %zu are possible", path, (uintmax_t)found.st_size, most);
  }
  size_t size = (size_t)found.st_size;
  if (size > 0) {
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file->handle, 0);
    if (data == MAP_FAILED) fail(memory, EDGEQ_FAILED, "cannot map %s: %s", path, strerror(errno));
    file->mapping = (Mapping){data, size};
  }
  close(file->handle);
  file->handle = -1;
  return &file->mapping;
}

void forget_pages(Mapping mapping) {
  /* They stay in the system's cache, and come back when they are read. */
  if (mapping.size > 0) madvise((void *)(uintptr_t)mapping.data, mapping.size, MADV_DONTNEED);
}
