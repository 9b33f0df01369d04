/* The inner function of SHA-256, with the processor's own instructions where it has them: checking a bundle takes most of
 * the time that it takes to start. */
#ifndef EDGEQ_SHA256_BLOCKS_H
#define EDGEQ_SHA256_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

/* Takes `count` blocks of 64 bytes into the state. */
void sha256_blocks(uint32_t state[8], const uint8_t *blocks, size_t count);

#endif
