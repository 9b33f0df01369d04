#include "sha256_blocks.h"

#include <stdbool.h>
#include <string.h>

#include "cpu.h"

const uint32_t SHA256_ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t word, int by) { return word >> by | word << (32 - by); }

static void absorb_one(uint32_t state[8], const uint8_t block[64]) {
  uint32_t schedule[64];
  uint32_t s[8];
  for (int i = 0; i < 16; i++) {
    const uint8_t *b = block + 4 * i;
    schedule[i] = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
  }
  for (int i = 16; i < 64; i++) {
    uint32_t low = schedule[i - 15];
    uint32_t high = schedule[i - 2];
    schedule[i] = schedule[i - 16] + schedule[i - 7] + (rotate(low, 7) ^ rotate(low, 18) ^ low >> 3) +
                  (rotate(high, 17) ^ rotate(high, 19) ^ high >> 10);
  }
  memcpy(s, state, sizeof s);
  /* Names move through the array instead of values through names. */
  for (int i = 0; i < 64; i += 8) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
      uint32_t a = s[(8 - j) & 7], b = s[(9 - j) & 7], c = s[(10 - j) & 7], e = s[(12 - j) & 7];
      uint32_t first = s[(15 - j) & 7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
                       ((e & s[(13 - j) & 7]) ^ (~e & s[(14 - j) & 7])) + SHA256_ROUND[i + j] + schedule[i + j];
      s[(11 - j) & 7] += first;
      s[(15 - j) & 7] = first + (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    }
  }
  for (int i = 0; i < 8; i++) state[i] += s[i];
}

static void absorb(uint32_t state[8], const uint8_t *blocks, size_t count) {
  for (size_t i = 0; i < count; i++) absorb_one(state, blocks + 64 * i);
}

/* With instructions: a message in registers, which takes a block in sixteen steps of four rounds each. A step waits for
 * the one before, so two messages side by side take less time than one after the other. */

#if defined(__x86_64__)
#include <immintrin.h>

#define HAS_FAST 1
#define FAST __attribute__((target("sha,sse4.1,ssse3")))
#define FAST_STEP FAST static inline __attribute__((always_inline))

static bool has_instructions(void) { return cpu_has("sha_ni") && cpu_has("sse4_1"); }

typedef struct {
  __m128i abef, cdgh, old_abef, old_cdgh, words[4];
} Lane;

/* The instructions want the state as A, B, E, F and C, D, G, H. */
FAST_STEP void lane_open(Lane *lane, const uint32_t state[8]) {
  __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)state), 0xB1);
  __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)(state + 4)), 0x1B);
  lane->abef = _mm_alignr_epi8(low, high, 8);
  lane->cdgh = _mm_blend_epi16(high, low, 0xF0);
}

FAST_STEP void lane_begin(Lane *lane) {
  lane->old_abef = lane->abef;
  lane->old_cdgh = lane->cdgh;
}

FAST_STEP void lane_step(Lane *lane, const uint8_t *block, int i) {
  const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  __m128i next, *words = lane->words;
  if (i < 4) {
    next = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(block + 16 * i)), order);
  } else {
    __m128i seventh = _mm_alignr_epi8(words[(i + 3) & 3], words[(i + 2) & 3], 4);
    next = _mm_add_epi32(_mm_sha256msg1_epu32(words[i & 3], words[(i + 1) & 3]), seventh);
    next = _mm_sha256msg2_epu32(next, words[(i + 3) & 3]);
  }
  words[i & 3] = next;
  __m128i added = _mm_add_epi32(next, _mm_loadu_si128((const __m128i *)(const void *)(SHA256_ROUND + 4 * i)));
  lane->cdgh = _mm_sha256rnds2_epu32(lane->cdgh, lane->abef, added);
  lane->abef = _mm_sha256rnds2_epu32(lane->abef, lane->cdgh, _mm_shuffle_epi32(added, 0x0E));
}

FAST_STEP void lane_end(Lane *lane) {
  lane->abef = _mm_add_epi32(lane->abef, lane->old_abef);
  lane->cdgh = _mm_add_epi32(lane->cdgh, lane->old_cdgh);
}

FAST_STEP void lane_close(const Lane *lane, uint32_t state[8]) {
  __m128i low = _mm_shuffle_epi32(lane->abef, 0x1B), high = _mm_shuffle_epi32(lane->cdgh, 0xB1);
  _mm_storeu_si128((__m128i *)(void *)state, _mm_blend_epi16(low, high, 0xF0));
  _mm_storeu_si128((__m128i *)(void *)(state + 4), _mm_alignr_epi8(high, low, 8));
}

#elif defined(__aarch64__)
#include <arm_neon.h>

#define HAS_FAST 1
#define FAST __attribute__((target("+crypto")))
#define FAST_STEP FAST static inline __attribute__((always_inline))

static bool has_instructions(void) { return cpu_has("sha2"); }

typedef struct {
  uint32x4_t abcd, efgh, old_abcd, old_efgh, words[4];
} Lane;

FAST_STEP void lane_open(Lane *lane, const uint32_t state[8]) {
  lane->abcd = vld1q_u32(state);
  lane->efgh = vld1q_u32(state + 4);
}

FAST_STEP void lane_begin(Lane *lane) {
  lane->old_abcd = lane->abcd;
  lane->old_efgh = lane->efgh;
}

FAST_STEP void lane_step(Lane *lane, const uint8_t *block, int i) {
  uint32x4_t next, *words = lane->words;
  if (i < 4) {
    next = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(block + 16 * i)));
  } else {
    next = vsha256su0q_u32(words[i & 3], words[(i + 1) & 3]);
    next = vsha256su1q_u32(next, words[(i + 2) & 3], words[(i + 3) & 3]);
  }
  words[i & 3] = next;
  uint32x4_t added = vaddq_u32(next, vld1q_u32(SHA256_ROUND + 4 * i)), before = lane->abcd;
  lane->abcd = vsha256hq_u32(lane->abcd, lane->efgh, added);
  lane->efgh = vsha256h2q_u32(lane->efgh, before, added);
}

FAST_STEP void lane_end(Lane *lane) {
  lane->abcd = vaddq_u32(lane->abcd, lane->old_abcd);
  lane->efgh = vaddq_u32(lane->efgh, lane->old_efgh);
}

FAST_STEP void lane_close(const Lane *lane, uint32_t state[8]) {
  vst1q_u32(state, lane->abcd);
  vst1q_u32(state + 4, lane->efgh);
}

#endif

#if defined(HAS_FAST)

FAST static void absorb_fast(uint32_t state[8], const uint8_t *blocks, size_t count) {
  Lane lane;
  lane_open(&lane, state);
  for (; count > 0; count--, blocks += 64) {
    lane_begin(&lane);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) lane_step(&lane, blocks, i);
    lane_end(&lane);
  }
  lane_close(&lane, state);
}

FAST static void absorb_two_fast(uint32_t states[2][8], const uint8_t *first, const uint8_t *second, size_t count) {
  Lane one, two;
  lane_open(&one, states[0]);
  lane_open(&two, states[1]);
  for (; count > 0; count--, first += 64, second += 64) {
    lane_begin(&one);
    lane_begin(&two);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
      lane_step(&one, first, i);
      lane_step(&two, second, i);
    }
    lane_end(&one);
    lane_end(&two);
  }
  lane_close(&one, states[0]);
  lane_close(&two, states[1]);
}

#endif

void sha256_blocks(uint32_t state[8], const uint8_t *blocks, size_t count) {
#if defined(HAS_FAST)
  if (has_instructions()) {
    absorb_fast(state, blocks, count);
    return;
  }
#endif
  absorb(state, blocks, count);
}

void sha256_two_blocks(uint32_t states[2][8], const uint8_t *first, const uint8_t *second, size_t count) {
#if defined(HAS_FAST)
  if (has_instructions()) {
    absorb_two_fast(states, first, second, count);
    return;
  }
#endif
  absorb(states[0], first, count);
  absorb(states[1], second, count);
}
