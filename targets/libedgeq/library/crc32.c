#include "crc32.h"

#include <stdbool.h>
#include <string.h>

#include "cpu.h"

/* All numbers are bit-reversed: bit 31 is the constant term. `state` is the remainder so far, inverted. */
enum { POLYNOMIAL = (int)0xEDB88320, SLICES = 8 };

static uint32_t next_bit(uint32_t state) { return state >> 1 ^ ((uint32_t)POLYNOMIAL & (0u - (state & 1))); }

static uint32_t add_bytes(uint32_t state, const uint8_t *at, size_t size) {
  for (; size > 0; size--, at++) {
    state ^= *at;
    for (int bit = 0; bit < 8; bit++) state = next_bit(state);
  }
  return state;
}

/* Eight bytes a step, through tables of what each of them does. Making the tables takes some microseconds. */
static uint32_t add_with_tables(uint32_t state, const uint8_t *at, size_t size) {
  uint32_t table[SLICES][256];
  for (uint32_t byte = 0; byte < 256; byte++) {
    table[0][byte] = byte;
    for (int bit = 0; bit < 8; bit++) table[0][byte] = next_bit(table[0][byte]);
  }
  for (int slice = 1; slice < SLICES; slice++) {
    for (int byte = 0; byte < 256; byte++) {
      uint32_t before = table[slice - 1][byte];
      table[slice][byte] = before >> 8 ^ table[0][before & 0xFF];
    }
  }
  for (; size >= SLICES; size -= SLICES, at += SLICES) {
    uint32_t low = state ^ ((uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24);
    state = table[7][low & 0xFF] ^ table[6][low >> 8 & 0xFF] ^ table[5][low >> 16 & 0xFF] ^ table[4][low >> 24] ^
            table[3][at[4]] ^ table[2][at[5]] ^ table[1][at[6]] ^ table[0][at[7]];
  }
  return add_bytes(state, at, size);
}

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdatomic.h>

/* By carry-less products (Gopal et al., "Fast CRC computation for generic polynomials using PCLMULQDQ instruction", Intel
 * 2009): a vector is moved over the bits that follow it by two products with powers of x modulo the polynomial, which are
 * named here by the distance in bits. */
enum { WIDE = 256, NARROW = 64 }; /* bytes that are taken at once, and at least */
#define MOVE_2048 0x01322d1430, 0x011542778a
#define MOVE_512 0x01c6e41596, 0x0154442bd4
#define MOVE_128 0x00ccaa009e, 0x01751997d0
#define FAST __attribute__((target("pclmul,sse4.1")))
#define FAST_IN_PAIRS __attribute__((target("pclmul,sse4.1,avx2,vpclmulqdq")))
#define FAST_WIDE __attribute__((target("pclmul,sse4.1,avx512f,avx512bw,avx512vl,vpclmulqdq")))

typedef enum { UNKNOWN, TABLES, PRODUCTS, PRODUCTS_IN_PAIRS, WIDE_PRODUCTS } Way;

static Way best_way(void) {
  if (!cpu_has("pclmulqdq") || !cpu_has("sse4_1")) return TABLES;
  if (!cpu_has("vpclmulqdq") || !cpu_has("avx2")) return PRODUCTS;
  return cpu_has("avx512f") && cpu_has("avx512bw") && cpu_has("avx512vl") ? WIDE_PRODUCTS : PRODUCTS_IN_PAIRS;
}

/* The best way of this processor, which is found once: to find it takes a tenth of what a block takes. Every thread finds
 * the same. */
static Way way_here(void) {
  static atomic_int known;
  Way way = (Way)atomic_load_explicit(&known, memory_order_relaxed);
  if (way != UNKNOWN) return way;
  way = best_way();
  atomic_store_explicit(&known, (int)way, memory_order_relaxed);
  return way;
}

FAST static inline __m128i move(__m128i value, __m128i by) {
  return _mm_xor_si128(_mm_clmulepi64_si128(value, by, 0x00), _mm_clmulepi64_si128(value, by, 0x11));
}

/* The remainder of a vector that nothing follows: its bytes are a message. */
FAST static uint32_t remainder_of(__m128i value) {
  uint8_t bytes[16];
  _mm_storeu_si128((__m128i *)(void *)bytes, value);
  return add_bytes(0, bytes, sizeof bytes);
}

FAST static inline __m128i load(const uint8_t *at) { return _mm_loadu_si128((const __m128i *)(const void *)at); }

/* At least NARROW bytes; takes as many vectors as there are. */
FAST static uint32_t add_narrow(uint32_t state, const uint8_t **at, size_t *size) {
  const __m128i far = _mm_set_epi64x(MOVE_512), near = _mm_set_epi64x(MOVE_128);
  __m128i parts[4];
  for (int i = 0; i < 4; i++) parts[i] = load(*at + 16 * i);
  parts[0] = _mm_xor_si128(parts[0], _mm_cvtsi32_si128((int)state));
  for (*at += NARROW, *size -= NARROW; *size >= NARROW; *at += NARROW, *size -= NARROW) {
    for (int i = 0; i < 4; i++) parts[i] = _mm_xor_si128(move(parts[i], far), load(*at + 16 * i));
  }
  for (int i = 1; i < 4; i++) parts[i] = _mm_xor_si128(move(parts[i - 1], near), parts[i]);
  for (; *size >= 16; *at += 16, *size -= 16) parts[3] = _mm_xor_si128(move(parts[3], near), load(*at));
  return remainder_of(parts[3]);
}

FAST_IN_PAIRS static inline __m256i move_pair(__m256i value, __m256i by) {
  return _mm256_xor_si256(_mm256_clmulepi64_epi128(value, by, 0x00), _mm256_clmulepi64_epi128(value, by, 0x11));
}

FAST_IN_PAIRS static inline __m256i load_pair(const uint8_t *at) {
  return _mm256_loadu_si256((const __m256i *)(const void *)at);
}

/* At least WIDE bytes; takes as many times WIDE as there are. */
FAST_IN_PAIRS static uint32_t add_in_pairs(uint32_t state, const uint8_t **at, size_t *size) {
  const __m256i far = _mm256_broadcastsi128_si256(_mm_set_epi64x(MOVE_2048));
  const __m256i near = _mm256_broadcastsi128_si256(_mm_set_epi64x(MOVE_512));
  const __m128i last = _mm_set_epi64x(MOVE_128);
  __m256i parts[8];
  for (int i = 0; i < 8; i++) parts[i] = load_pair(*at + 32 * i);
  parts[0] = _mm256_xor_si256(parts[0], _mm256_zextsi128_si256(_mm_cvtsi32_si128((int)state)));
  for (*at += WIDE, *size -= WIDE; *size >= WIDE; *at += WIDE, *size -= WIDE) {
    for (int i = 0; i < 8; i++) parts[i] = _mm256_xor_si256(move_pair(parts[i], far), load_pair(*at + 32 * i));
  }
  for (int i = 2; i < 8; i++) parts[i] = _mm256_xor_si256(move_pair(parts[i - 2], near), parts[i]);
  __m128i value = _mm256_castsi256_si128(parts[6]);
  value = _mm_xor_si128(move(value, last), _mm256_extracti128_si256(parts[6], 1));
  value = _mm_xor_si128(move(value, last), _mm256_castsi256_si128(parts[7]));
  value = _mm_xor_si128(move(value, last), _mm256_extracti128_si256(parts[7], 1));
  return remainder_of(value);
}

FAST_WIDE static inline __m512i move_wide(__m512i value, __m512i by) {
  return _mm512_xor_si512(_mm512_clmulepi64_epi128(value, by, 0x00), _mm512_clmulepi64_epi128(value, by, 0x11));
}

/* At least WIDE bytes; takes as many times WIDE as there are. */
FAST_WIDE static uint32_t add_wide(uint32_t state, const uint8_t **at, size_t *size) {
  const __m512i far = _mm512_broadcast_i32x4(_mm_set_epi64x(MOVE_2048));
  const __m512i near = _mm512_broadcast_i32x4(_mm_set_epi64x(MOVE_512));
  const __m128i last = _mm_set_epi64x(MOVE_128);
  __m512i parts[4];
  for (int i = 0; i < 4; i++) parts[i] = _mm512_loadu_si512(*at + 64 * i);
  parts[0] = _mm512_xor_si512(parts[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state)));
  for (*at += WIDE, *size -= WIDE; *size >= WIDE; *at += WIDE, *size -= WIDE) {
    for (int i = 0; i < 4; i++) {
      parts[i] = _mm512_xor_si512(move_wide(parts[i], far), _mm512_loadu_si512(*at + 64 * i));
    }
  }
  for (int i = 1; i < 4; i++) parts[i] = _mm512_xor_si512(move_wide(parts[i - 1], near), parts[i]);
  __m128i value = _mm512_extracti32x4_epi32(parts[3], 0);
  value = _mm_xor_si128(move(value, last), _mm512_extracti32x4_epi32(parts[3], 1));
  value = _mm_xor_si128(move(value, last), _mm512_extracti32x4_epi32(parts[3], 2));
  value = _mm_xor_si128(move(value, last), _mm512_extracti32x4_epi32(parts[3], 3));
  return remainder_of(value);
}

static uint32_t add_fast(uint32_t state, const uint8_t *at, size_t size) {
  if (size < NARROW) return add_bytes(state, at, size);
  Way way = way_here();
  if (way == TABLES) return add_with_tables(state, at, size);
  if (size >= WIDE && way == WIDE_PRODUCTS) state = add_wide(state, &at, &size);
  if (size >= WIDE && way == PRODUCTS_IN_PAIRS) state = add_in_pairs(state, &at, &size);
  if (size >= NARROW) state = add_narrow(state, &at, &size);
  return add_bytes(state, at, size);
}

#elif defined(__aarch64__)
#include <arm_acle.h>

__attribute__((target("+crc"))) static uint32_t add_eights(uint32_t state, const uint8_t *at, size_t size) {
  for (; size >= 8; size -= 8, at += 8) {
    uint64_t eight;
    memcpy(&eight, at, sizeof eight);
    state = __crc32d(state, eight);
  }
  return state;
}

static uint32_t add_fast(uint32_t state, const uint8_t *at, size_t size) {
  if (!cpu_has("crc32")) return add_with_tables(state, at, size);
  state = add_eights(state, at, size);
  return add_bytes(state, at + size / 8 * 8, size % 8);
}

#else

static uint32_t add_fast(uint32_t state, const uint8_t *at, size_t size) { return add_with_tables(state, at, size); }

#endif

uint32_t crc32_of(const void *data, size_t size) { return ~add_fast(~0u, data, size); }
