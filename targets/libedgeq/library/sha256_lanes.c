#include "sha256_lanes.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu.h"
#include "sha256_blocks.h"

#define FAST __attribute__((target("avx512f,avx512bw")))
#define FAST_STEP FAST static inline __attribute__((always_inline))

/* Truth tables of the standard's functions of three words. */
enum { PARITY = 0x96, CHOICE = 0xCA, MAJORITY = 0xE8 };

/* Macros, because the distances have to be constants. */
#define ROTATED(x, a, b, c) \
  _mm512_ternarylogic_epi32(_mm512_ror_epi32(x, a), _mm512_ror_epi32(x, b), _mm512_ror_epi32(x, c), PARITY)
#define SHIFTED(x, a, b, c) \
  _mm512_ternarylogic_epi32(_mm512_ror_epi32(x, a), _mm512_ror_epi32(x, b), _mm512_srli_epi32(x, c), PARITY)

bool sha256_has_lanes(void) { return cpu_has("avx512f") && cpu_has("avx512bw"); }

/* Reads a block of every message: words[i] gets word i of all. */
FAST_STEP void load_block(__m512i words[16], const uint8_t *const messages[SHA256_LANES], size_t at) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
  __m512i pairs[16], fours[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    __m512i one = _mm512_shuffle_epi8(_mm512_loadu_si512(messages[i] + at), order);
    __m512i two = _mm512_shuffle_epi8(_mm512_loadu_si512(messages[i + 1] + at), order);
    pairs[i] = _mm512_unpacklo_epi32(one, two);
    pairs[i + 1] = _mm512_unpackhi_epi32(one, two);
  }
  /* fours[4 * i + j]: in each quarter k, word 4 * k + j of messages 4 * i to 4 * i + 3. */
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    __m512i low = _mm512_shuffle_i32x4(fours[j], fours[4 + j], 0x44);
    __m512i high = _mm512_shuffle_i32x4(fours[j], fours[4 + j], 0xEE);
    __m512i next_low = _mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0x44);
    __m512i next_high = _mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0xEE);
    words[j] = _mm512_shuffle_i32x4(low, next_low, 0x88);
    words[4 + j] = _mm512_shuffle_i32x4(low, next_low, 0xDD);
    words[8 + j] = _mm512_shuffle_i32x4(high, next_high, 0x88);
    words[12 + j] = _mm512_shuffle_i32x4(high, next_high, 0xDD);
  }
}

/* The word of the schedule that is sixteen after words[i]; it takes that one's place. */
FAST_STEP void extend(__m512i words[16], int i) {
  __m512i low = words[(i + 1) & 15], high = words[(i + 14) & 15];
  __m512i sum = _mm512_add_epi32(words[i], words[(i + 9) & 15]);
  words[i] = _mm512_add_epi32(_mm512_add_epi32(sum, SHIFTED(low, 7, 18, 3)), SHIFTED(high, 17, 19, 10));
}

/* Round i of sixteen; names move through the array instead of values through names. */
FAST_STEP void step(__m512i s[8], __m512i word, uint32_t constant, int i) {
  __m512i a = s[(16 - i) & 7], b = s[(17 - i) & 7], c = s[(18 - i) & 7], e = s[(20 - i) & 7];
  __m512i first = _mm512_add_epi32(s[(23 - i) & 7], _mm512_add_epi32(word, _mm512_set1_epi32((int)constant)));
  __m512i choice = _mm512_ternarylogic_epi32(e, s[(21 - i) & 7], s[(22 - i) & 7], CHOICE);
  first = _mm512_add_epi32(_mm512_add_epi32(first, choice), ROTATED(e, 6, 11, 25));
  __m512i second = _mm512_add_epi32(ROTATED(a, 2, 13, 22), _mm512_ternarylogic_epi32(a, b, c, MAJORITY));
  s[(19 - i) & 7] = _mm512_add_epi32(s[(19 - i) & 7], first);
  s[(23 - i) & 7] = _mm512_add_epi32(first, second);
}

FAST void sha256_lane_blocks(uint32_t states[8][SHA256_LANES], const uint8_t *const messages[SHA256_LANES],
                             size_t count) {
  __m512i s[8], words[16];
  for (int i = 0; i < 8; i++) s[i] = _mm512_loadu_si512(states[i]);
  for (size_t at = 0; at < 64 * count; at += 64) {
    load_block(words, messages, at);
    for (int round = 0; round < 64; round += 16) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) {
        if (round > 0) extend(words, i);
        step(s, words[i], SHA256_ROUND[round + i], i);
      }
    }
    for (int i = 0; i < 8; i++) {
      s[i] = _mm512_add_epi32(s[i], _mm512_loadu_si512(states[i]));
      _mm512_storeu_si512(states[i], s[i]);
    }
  }
}

#else

bool sha256_has_lanes(void) { return false; }

/* Never called. */
void sha256_lane_blocks(uint32_t states[8][SHA256_LANES], const uint8_t *const messages[SHA256_LANES], size_t count) {
  (void)states;
  (void)messages;
  (void)count;
}

#endif
