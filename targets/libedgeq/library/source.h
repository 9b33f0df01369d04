/* Where the files of a bundle come from: a folder, a packed file, or one that is in memory. */
#ifndef EDGEQ_SOURCE_H
#define EDGEQ_SOURCE_H

#include <stdbool.h>

#include "memory.h"
#include "platform.h"

/* Open: its files belong together, also if another folder or file takes its name meanwhile. */
typedef struct Source Source;

/* Opens the folder or packed file at `path` until it is given back with release(). A packed file stays mapped as long as
 * `kept` lasts. */
Source *open_source(Memory *memory, Memory *kept, const char *path);

/* A packed file in memory that the caller keeps, aligned to EDGEQ_ALIGNMENT. */
Source *memory_source(Memory *memory, const void *data, size_t size);

/* Path of a file in it, for messages. */
char *path_in(Memory *memory, const Source *source, const char *name);

/* A file as read-only memory, until it is given back with release() or, in a packed file, as long as that; fails with
 * `status` if it is no regular file that can be read, or has more than `most` bytes. A pipe is not waited for. */
const Mapping *map_file(Memory *memory, const Source *source, const char *name, size_t most, edgeq_status status);

/* Whether there is such a file, whatever it is. */
bool has_file(Memory *memory, const Source *source, const char *name);

/* Whether forget_pages may be called for its files. */
bool can_forget(const Source *source);

#endif
