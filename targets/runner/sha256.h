/* SHA-256 (FIPS 180-4), to tell a damaged file from a whole one. */
#ifndef EDGEQ_SHA256_H
#define EDGEQ_SHA256_H

#include <stddef.h>

enum { SHA256_HEX = 65 };

/* Writes the digest of `length` bytes as 64 hexadecimal digits and a NUL. */
void sha256_hex(const void *data, size_t length, char out[SHA256_HEX]);

#endif
