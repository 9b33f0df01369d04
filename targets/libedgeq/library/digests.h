/* Pieces of files compared with their digests on several cores: most of the time that a bundle takes to open. */
#ifndef EDGEQ_DIGESTS_H
#define EDGEQ_DIGESTS_H

#include "memory.h"
#include "sha256.h"

typedef struct {
  Message message;
  const char *expected; /* its SHA-256 in hexadecimal digits */
  const char *name;     /* of the file */
  int forget;           /* 1: it starts at a page of a mapped file, whose pages are forgotten once they are compared */
} Piece;

/* Compares `count` pieces on `threads` threads (0 for every core) of which the caller's is one; returns the name of the
 * first whose digest is another than expected, or NULL. */
const char *compare_digests(Memory *memory, const Piece *pieces, size_t count, int threads);

#endif
