/* The inner function of SHA-256, with the processor's own instructions where it has them: on one core, one message at
 * a time, checking a bundle would take most of the time that it takes to start. */
#ifndef EDGEQ_SHA256_BLOCKS_H
#define EDGEQ_SHA256_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

#include "names.h"

/* The standard's constants, one of each round. */
extern const uint32_t SHA256_ROUND[64];

/* Takes `count` blocks of 64 bytes into the state. */
void sha256_blocks(uint32_t state[8], const uint8_t *blocks, size_t count);

/* Takes `count` blocks of each of two messages into their states, side by side. */
void sha256_two_blocks(uint32_t states[2][8], const uint8_t *first, const uint8_t *second, size_t count);

#endif
