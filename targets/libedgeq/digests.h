/* Pieces of files compared with their digests on several cores: about half of the time that a bundle takes to start. */
#ifndef EDGEQ_DIGESTS_H
#define EDGEQ_DIGESTS_H

#include <stddef.h>

#include "sha256.h"

typedef struct {
  Message message;      /* starts at a page of a mapped file; its pages are forgotten once they are compared */
  const char *expected; /* its SHA-256 in hexadecimal digits */
  const char *name;     /* of the file */
} Piece;

typedef struct Digests Digests;

/* Begins to compare `count` pieces, on `threads` threads (0 for every core) of which the caller's is one: nothing but
 * digests_end may touch the pieces meanwhile. */
Digests *digests_begin(Piece *pieces, size_t count, int threads);

/* Takes part until all pieces are compared; returns the name of the first whose digest is another than expected, or NULL.
 * Frees what digests_begin took, and the pieces. */
const char *digests_end(Digests *digests);

#endif
