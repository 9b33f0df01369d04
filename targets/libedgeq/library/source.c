#include "source.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "mapped_file.h"
#include "pack.h"

struct Source {
  const char *path;
  Folder folder; /* NO_FOLDER for a packed file */
  bool is_mapped;
  Pack pack;
};

static void close_source(void *source) {
  Folder folder = ((Source *)source)->folder;
  if (folder != NO_FOLDER) close_folder(folder);
}

static Source *new_source(Memory *memory, const char *path) {
  Source *source = allocate_with(memory, sizeof *source, close_source);
  *source = (Source){.folder = NO_FOLDER, .is_mapped = true};
  source->path = copy_text(memory, path);
  return source;
}

Source *open_source(Memory *memory, Memory *kept, const char *path) {
  Source *source = new_source(memory, path);
  Found found = look_at(path);
  if (found == FOUND_NOTHING) fail(memory, EDGEQ_USAGE, "no bundle folder at %s: %s", path, strerror(errno));
  if (found == FOUND_FOLDER) {
    source->folder = open_folder(path);
    if (source->folder == NO_FOLDER) fail(memory, EDGEQ_USAGE, "cannot open %s: %s", path, strerror(errno));
    return source;
  }
  const Mapping *whole = map_regular_file(kept, NO_FOLDER, path, path, PTRDIFF_MAX, EDGEQ_USAGE);
  source->pack = read_pack(memory, *whole, path);
  return source;
}

Source *memory_source(Memory *memory, const void *data, size_t size) {
  Source *source = new_source(memory, "the packed bundle");
  source->is_mapped = false;
  if ((uintptr_t)data % EDGEQ_ALIGNMENT != 0) {
    fail(memory, EDGEQ_USAGE, "a packed bundle in memory must be aligned to %d bytes", EDGEQ_ALIGNMENT);
  }
  source->pack = read_pack(memory, (Mapping){data, size}, source->path);
  return source;
}

char *path_in(Memory *memory, const Source *source, const char *name) {
  size_t length = strlen(source->path) + strlen(name) + 2;
  char *path = allocate(memory, length, 1);
  snprintf(path, length, "%s/%s", source->path, name);
  return path;
}

bool has_file(Memory *memory, const Source *source, const char *name) {
  if (source->folder == NO_FOLDER) return find_packed(&source->pack, name) != NULL;
  Mapping mapping = {NULL, 0};
  uintmax_t size = 0;
  char *path = path_in(memory, source, name);
  MapResult result = map_whole_file(source->folder, name, path, PTRDIFF_MAX, &mapping, &size);
  release(memory, path);
  if (result == FILE_MAPPED) unmap(mapping);
  return result != FILE_NOT_OPENED;
}

bool can_forget(const Source *source) { return source->is_mapped; }

const Mapping *map_file(Memory *memory, const Source *source, const char *name, size_t most, edgeq_status status) {
  char *path = path_in(memory, source, name);
  if (source->folder != NO_FOLDER) {
    const Mapping *mapping = map_regular_file(memory, source->folder, name, path, most, status);
    release(memory, path);
    return mapping;
  }
  const PackedFile *file = find_packed(&source->pack, name);
  if (file == NULL) fail(memory, EDGEQ_DAMAGED, "%s is missing; pack the bundle again", path);
  if (file->data.size > most) {
    fail(memory, EDGEQ_DAMAGED, "%s has %zu bytes, at most %zu are possible", path, file->data.size, most);
  }
  release(memory, path);
  Mapping *mapping = allocate(memory, 1, sizeof *mapping);
  *mapping = file->data;
  return mapping;
}
