/* CRC-32 as in zlib, PNG and Ethernet: it tells a damaged file from a whole one at about the speed of memory, and nothing
 * more. What a person changed on purpose only SHA-256 tells. */
#ifndef EDGEQ_CRC32_H
#define EDGEQ_CRC32_H

#include <stddef.h>
#include <stdint.h>

#include "names.h"

uint32_t crc32_of(const void *data, size_t size);

#endif
