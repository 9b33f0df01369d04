#include "mapped_file.h"

#include <errno.h>
#include <string.h>

static void unmap_file(void *mapping) { unmap(*(const Mapping *)mapping); }

const Mapping *map_regular_file(Memory *memory, Folder folder, const char *name, const char *path, size_t most,
                                edgeq_status status) {
  uintmax_t size = 0;
  Mapping *mapping = allocate_with(memory, sizeof *mapping, unmap_file);
  switch (map_whole_file(folder, name, path, most, mapping, &size)) {
    case FILE_NOT_OPENED:
      fail(memory, status, "cannot open %s: %s", path, strerror(errno));
    case FILE_NOT_REGULAR:
      fail(memory, status, "%s is not a file", path);
    case FILE_TOO_LARGE:
      fail(memory, status, "%s has %ju bytes, at most %zu are possible", path, size, most);
    case FILE_NOT_MAPPED:
      fail(memory, EDGEQ_FAILED, "cannot map %s: %s", path, strerror(errno));
    case FILE_MAPPED:
      break;
  }
  return mapping;
}
