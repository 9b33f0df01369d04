/* The inner function of SHA-256 for sixteen messages at once, one in each lane of 512-bit registers. There it takes about
 * half the time of the processor's instructions for SHA-256. */
#ifndef EDGEQ_SHA256_LANES_H
#define EDGEQ_SHA256_LANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "names.h"

enum { SHA256_LANES = 16 };

/* Whether this processor has such registers. */
bool sha256_has_lanes(void);

/* Takes `count` blocks of 64 bytes of each message into its state; word i of the state of message m is states[i][m]. Only
 * where sha256_has_lanes(). */
void sha256_lane_blocks(uint32_t states[8][SHA256_LANES], const uint8_t *const messages[SHA256_LANES], size_t count);

#endif
