/* Time that only goes forward. */
#ifndef EDGEQ_CLOCK_H
#define EDGEQ_CLOCK_H

#include <time.h>

/* Seconds since some moment. */
static inline double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

#endif
