/* SHA-256 (FIPS 180-4), to tell a damaged file from a whole one. */
#ifndef EDGEQ_SHA256_H
#define EDGEQ_SHA256_H

#include <stddef.h>

#include "names.h"

enum { SHA256_HEX = 65, SHA256_TOGETHER = 16 };

typedef struct {
  const void *data;
  size_t length;
} Message;

/* Writes the digests of messages as 64 hexadecimal digits and a NUL. Up to SHA256_TOGETHER of one length take little longer
 * together than a few of them would, so as many should be given at once. */
void sha256_hex(const Message *messages, size_t count, char (*out)[SHA256_HEX]);

#endif
