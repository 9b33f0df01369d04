/* A file as read-only memory. */
#ifndef EDGEQ_MAPPED_FILE_H
#define EDGEQ_MAPPED_FILE_H

#include "source.h"

/* Maps `name` below `folder` (or the path `name`, with NO_FOLDER) until it is given back with release();
 * `path` names it in messages. See map_file. */
const Mapping *map_regular_file(Memory *memory, Folder folder, const char *name, const char *path, size_t most,
                                edgeq_status status);

#endif
