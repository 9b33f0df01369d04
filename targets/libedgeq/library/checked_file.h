/* A file whose blocks are compared with their CRC-32 when something in them is first used. So a start does not wait for
 * what it does not need (most rows of a table of words), and what it needs is in the processor's caches when kernels read
 * it. Any number of threads may do this at once. */
#ifndef EDGEQ_CHECKED_FILE_H
#define EDGEQ_CHECKED_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "source.h"

enum { CHECKED_BLOCK = 1 << 17 }; /* bytes; the last block of a file may be shorter */

typedef struct {
  Mapping data;
  const char *path;         /* for messages */
  const uint32_t *expected; /* CRC-32 of each block; NULL if there is nothing to compare */
  atomic_bool *is_good;     /* of each block: it was compared */
} CheckedFile;

/* A file with the CRC-32 of its blocks, eight hexadecimal digits each, which must be as many as it has blocks: otherwise
 * `expected` stays NULL and false is returned. */
bool checked_file(Memory *memory, CheckedFile *file, Mapping data, const char *path, const char *digits);

/* Compares the blocks that hold these bytes of the file, if they are not known to be good; false if one is damaged. Bytes
 * that are not the file's are none of its business. */
bool bytes_are_good(const CheckedFile *file, const void *data, size_t size);

/* The same, but fails if a block is damaged. With the second, the threads of the calling thread's pool share the work. */
void check_bytes(const Memory *memory, const CheckedFile *file, const void *data, size_t size);
void check_bytes_together(const Memory *memory, const CheckedFile *file, const void *data, size_t size);

/* Fails because a block is damaged. */
_Noreturn void fail_damaged(const Memory *memory, const CheckedFile *file);

#endif
