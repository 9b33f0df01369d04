#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct Folder {
  char *path;
  int handle;
};

/* A file while it is being opened, and then its mapping. */
typedef struct {
  Mapping mapping;
  int handle; /* -1 once it is closed */
} OpenFile;

static void close_folder(void *folder) {
  int handle = ((Folder *)folder)->handle;
  if (handle >= 0) close(handle);
}

static void close_file(void *file) {
  OpenFile *open_file = file;
  if (open_file->handle >= 0) close(open_file->handle);
  if (open_file->mapping.size > 0) munmap((void *)(uintptr_t)open_file->mapping.data, open_file->mapping.size);
}

Folder *open_folder(Memory *memory, const char *path) {
  Folder *folder = allocate_with(memory, sizeof *folder, close_folder);
  folder->handle = -1;
  folder->path = copy_text(memory, path);
  folder->handle = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder->handle < 0) fail(memory, EDGEQ_USAGE, "no bundle folder at %s: %s", path, strerror(errno));
  return folder;
}

char *path_in(Memory *memory, const Folder *folder, const char *name) {
  size_t length = strlen(folder->path) + strlen(name) + 2;
  char *path = allocate(memory, length, 1);
  snprintf(path, length, "%s/%s", folder->path, name);
  return path;
}

void forget_pages(Mapping mapping) {
  /* They stay in the system's cache, and come back when they are read. */
  if (mapping.size > 0) madvise((void *)(uintptr_t)mapping.data, mapping.size, MADV_DONTNEED);
}

const Mapping *map_file(Memory *memory, const Folder *folder, const char *name, size_t most, edgeq_status status) {
  struct stat found;
  OpenFile *file = allocate_with(memory, sizeof *file, close_file);
  file->handle = openat(folder->handle, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file->handle < 0) fail(memory, status, "cannot open %s/%s: %s", folder->path, name, strerror(errno));
  if (fstat(file->handle, &found) != 0 || !S_ISREG(found.st_mode)) {
    fail(memory, status, "%s/%s is not a file", folder->path, name);
  }
  if ((uintmax_t)found.st_size > most) {
    fail(memory, status, "%s/%s has %ju bytes, at most %zu are possible", folder->path, name, (uintmax_t)found.st_size,
         most);
  }
  size_t size = (size_t)found.st_size;
  if (size > 0) {
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file->handle, 0);
    if (data == MAP_FAILED) fail(memory, EDGEQ_FAILED, "cannot map %s/%s: %s", folder->path, name, strerror(errno));
    file->mapping = (Mapping){data, size};
  }
  close(file->handle);
  file->handle = -1;
  return &file->mapping;
}
