#include "sha256.h"

#include <stdio.h>
#include <string.h>

#include "sha256_blocks.h"

void sha256_hex(const void *data, size_t length, char out[SHA256_HEX]) {
  uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  const uint8_t *bytes = data;
  size_t whole = length / 64 * 64;
  sha256_blocks(state, bytes, whole / 64);
  /* The rest, a one bit, zeros, and the length in bits: one or two more blocks. */
  uint8_t tail[128] = {0};
  size_t rest = length - whole;
  size_t padded = rest < 56 ? 64 : 128;
  if (rest > 0) memcpy(tail, bytes + whole, rest);
  tail[rest] = 0x80;
  for (int i = 0; i < 8; i++) tail[padded - 1 - (size_t)i] = (uint8_t)((uint64_t)length * 8 >> (8 * i));
  sha256_blocks(state, tail, padded / 64);
  for (int i = 0; i < 8; i++) snprintf(out + 8 * i, 9, "%08x", state[i]);
}
