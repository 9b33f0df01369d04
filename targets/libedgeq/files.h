/* Files as read-only memory. */
#ifndef EDGEQ_FILES_H
#define EDGEQ_FILES_H

#include <stddef.h>

typedef struct {
  const char *data; /* page-aligned; NULL only if `size` is 0 */
  size_t size;
} Mapping;

/* Maps the file at `path`; stops the program with `code` if it is no readable file. */
Mapping map_file(const char *path, int code);

/* Gives the memory back; the mapping must not be used any more. */
void unmap_file(Mapping mapping);

/* Takes the pages that were read out of this process's memory until they are read again. */
void forget_pages(Mapping mapping);

#endif
