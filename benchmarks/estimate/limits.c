/* Clock and memory bandwidth of one core, the best of many tries: other programs can only make them look worse. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TRIES = 60, ADDITIONS = 1000000 };
static const size_t BYTES = (size_t)256 << 20, PIECE = (size_t)2 << 20;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Additions that wait for each other: one a cycle. */
static double gigahertz(void) {
  double best = 1e9;
  for (int try = 0; try < TRIES; try++) {
    uint64_t sum = 0;
    double start = now();
    for (int i = 0; i < ADDITIONS / 10; i++) {
      for (int k = 0; k < 10; k++) {
#if defined(__x86_64__)
        __asm__ volatile("add $1, %0" : "+r"(sum));
#else
        __asm__ volatile("add %0, %0, #1" : "+r"(sum));
#endif
      }
    }
    double seconds = now() - start;
    best = seconds < best ? seconds : best;
  }
  return ADDITIONS / best / 1e9;
}

/* Reads much more than any cache holds, and takes the best piece: a whole pass is longer than what a busy machine lets
 * a program run without a break. */
static double gigabytes_per_second(void) {
  uint64_t *data = malloc(BYTES);
  double best = 1e9;
  volatile uint64_t sink = 0;
  if (data == NULL) exit(1);
  memset(data, 1, BYTES);
  for (size_t at = 0; at < TRIES / 10 * (BYTES / PIECE); at++) {
    const uint64_t *piece = data + at % (BYTES / PIECE) * (PIECE / sizeof *data);
    uint64_t sums[32] = {0};
    double start = now();
    for (size_t i = 0; i < PIECE / sizeof *data; i += 32) {
      for (int k = 0; k < 32; k++) sums[k] += piece[i + (size_t)k];
    }
    double seconds = now() - start;
    for (int k = 0; k < 32; k++) sink += sums[k];
    best = seconds < best ? seconds : best;
  }
  free(data);
  return (double)PIECE / best / 1e9;
}

int main(void) {
  printf("{\"gigahertz\": %.4f, \"gigabytes_per_second\": %.3f}\n", gigahertz(), gigabytes_per_second());
  return 0;
}
