/* Clock of one core and what memory and caches give it, the best of many tries: other programs can only make them look
 * worse. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 60, ADDITIONS = 1000000, LARGEST_PASS_MIB = 256 };
static const size_t LEAST_BYTES = (size_t)256 << 20, PIECE = (size_t)2 << 20;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Additions that wait for each other: one a cycle. Of a register, for some processors add constants while renaming. */
static double gigahertz(void) {
  double best = 1e9;
  uint64_t one = 1;
  for (int try = 0; try < TRIES; try++) {
    uint64_t sum = 0;
    double start = now();
    for (int i = 0; i < ADDITIONS / 10; i++) {
      for (int k = 0; k < 10; k++) {
#if defined(__x86_64__)
        __asm__ volatile("add %1, %0" : "+r"(sum) : "r"(one));
#else
        __asm__ volatile("add %0, %0, %1" : "+r"(sum) : "r"(one));
#endif
      }
    }
    double seconds = now() - start;
    best = seconds < best ? seconds : best;
  }
  return ADDITIONS / best / 1e9;
}

/* Reads twice what the largest cache holds, and takes the best piece: a whole pass is longer than what a busy machine lets
 * a program run without a break. */
static double gigabytes_per_second(void) {
  long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  size_t pieces = (cache > 0 && 2 * (size_t)cache > LEAST_BYTES ? 2 * (size_t)cache : LEAST_BYTES) / PIECE;
  uint64_t *data = malloc(pieces * PIECE);
  double best = 1e9;
  volatile uint64_t sink = 0;
  if (data == NULL) exit(1);
  memset(data, 1, pieces * PIECE);
  for (size_t at = 0; at < TRIES / 10 * pieces; at++) {
    const uint64_t *piece = data + at % pieces * (PIECE / sizeof *data);
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

/* Whole passes over the same bytes, which come from the nearest cache that holds all of them. */
static double gigabytes_per_second_of_passes(size_t bytes) {
  size_t count = bytes / sizeof(uint64_t) / 32 * 32;
  uint64_t *data = malloc(bytes);
  double best = 1e9;
  volatile uint64_t sink = 0;
  if (data == NULL) exit(1);
  memset(data, 1, bytes);
  for (int try = 0; try < TRIES; try++) {
    uint64_t sums[32] = {0};
    double start = now();
    for (size_t i = 0; i < count; i += 32) {
      for (int k = 0; k < 32; k++) sums[k] += data[i + (size_t)k];
    }
    double seconds = now() - start;
    for (int k = 0; k < 32; k++) sink += sums[k];
    best = seconds < best ? seconds : best;
  }
  free(data);
  return (double)(count * sizeof(uint64_t)) / best / 1e9;
}

int main(void) {
  printf("{\"gigahertz\": %.4f, \"gigabytes_per_second\": %.3f", gigahertz(), gigabytes_per_second());
  printf(", \"passes\": {");
  for (int size = 1; size <= LARGEST_PASS_MIB; size *= 2) {
    printf(size > 1 ? ", \"%d\": %.3f" : "\"%d\": %.3f", size, gigabytes_per_second_of_passes((size_t)size << 20));
  }
  printf("}}\n");
  return 0;
}
