/* The files of a bundle as read-only memory. */
#ifndef EDGEQ_FILES_H
#define EDGEQ_FILES_H

#include "memory.h"

typedef struct {
  const char *data; /* page-aligned; NULL only if `size` is 0 */
  size_t size;
} Mapping;

/* A folder that is open: files that are mapped from it belong together, also if another folder takes its name meanwhile. */
typedef struct Folder Folder;

/* Opens a folder until it is given back with release(). */
Folder *open_folder(Memory *memory, const char *path);

/* Path of a file in the folder, for messages. */
char *path_in(Memory *memory, const Folder *folder, const char *name);

/* Maps a file until the mapping is given back with release(); fails with `status` if it is no regular file that can be
 * read, or has more than `most` bytes. A pipe is not waited for. */
const Mapping *map_file(Memory *memory, const Folder *folder, const char *name, size_t most, edgeq_status status);

/* Takes the pages that were read out of this process's memory until they are read again. */
void forget_pages(Mapping mapping);

#endif
