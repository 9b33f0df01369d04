/* A file as read-only memory. */
#ifndef EDGEQ_MAPPED_FILE_H
#define EDGEQ_MAPPED_FILE_H

#include "memory.h"
#include "platform.h"

/* Maps `name` below `folder` (or the path `name`, with NO_FOLDER) until it is given back with release(); `path` names it in
 * messages. Fails with `status` if it is no regular file that can be read, or has more than `most` bytes. A pipe is not
 * waited for. */
const Mapping *map_regular_file(Memory *memory, Folder folder, const char *name, const char *path, size_t most,
                                edgeq_status status);

#endif
