/* A packed file: all files of a bundle in one, each at a multiple of 4096 bytes.
 *
 * All numbers are little endian. Header of 64 bytes: "EDGEQPK1", u32 version, u32 number of files, u64 bytes of the whole,
 * u64 bytes of the table, 32 bytes SHA-256 of the table. Then the table: for each file u64 place, u64 bytes, u16 length of
 * the name, name. Then the files.
 *
 * It may stand at the end of a program. There 32 more bytes follow: "EDGEQEND", u64 place of the packed file, u64 its
 * bytes, 8 bytes of zeros. */
#ifndef EDGEQ_PACK_H
#define EDGEQ_PACK_H

#include <stdbool.h>
#include <stddef.h>

#include "memory.h"
#include "platform.h"

typedef struct {
  const char *name;
  Mapping data;
} PackedFile;

typedef struct {
  PackedFile *files;
  size_t count;
} Pack;

/* Reads the table of a packed file, or of a program that has one at its end; `path` names it in messages. Fails if it is
 * damaged. */
Pack read_pack(Memory *memory, Mapping whole, const char *path);

/* The file of that name, or NULL. */
const PackedFile *find_packed(const Pack *pack, const char *name);

#endif
