#include "numerics.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

static const double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;

double exp_of_negative(double x) {
  static const double factorials[] = {6227020800.0, 479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0,
                                      720.0,        120.0,       24.0,       6.0,       2.0,      1.0,     1.0};
  if (x < -700) return 0;
  double powers = rint(x * 1.4426950408889634);
  double rest = (x - powers * LN2_HIGH) - powers * LN2_LOW;
  double result = 1.0 / factorials[0];
  for (size_t i = 1; i < sizeof factorials / sizeof *factorials; i++) result = result * rest + 1.0 / factorials[i];
  return ldexp(result, (int)powers);
}

double natural_log(double x) {
  int exponent = 0;
  double significand = frexp(x, &exponent);
  if (significand < 0.7071067811865476) {
    significand *= 2.0;
    exponent--;
  }
  double ratio = (significand - 1.0) / (significand + 1.0);
  double square = ratio * ratio;
  double series = 1.0 / 25;
  for (int n = 23; n > 0; n -= 2) series = series * square + 1.0 / n;
  return exponent * LN2_HIGH + (2.0 * ratio * series + exponent * LN2_LOW);
}

double power(int64_t base, double exponent) {
  if (exponent == 1) return (double)base;
  double argument = exponent * natural_log((double)base);
  double small = exp_of_negative(fmax(-fabs(argument), -700));
  return argument > 0 ? 1.0 / small : small;
}

/* Whether position `a` comes after position `b` in the order of `largest`. */
static bool after(const double *values, size_t a, size_t b) {
  return values[a] < values[b] || (values[a] == values[b] && a > b);
}

/* Makes the heap below `at` one whose root comes after everything else in it. */
static void sift(const double *values, size_t *heap, size_t size, size_t at) {
  for (;;) {
    size_t last = at;
    for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < size; child++) {
      if (after(values, heap[child], heap[last])) last = child;
    }
    if (last == at) return;
    size_t moved = heap[at];
    heap[at] = heap[last];
    heap[last] = moved;
    at = last;
  }
}

void largest(const double *values, size_t count, size_t wanted, size_t *positions) {
  for (size_t i = 0; i < wanted; i++) positions[i] = i;
  for (size_t i = wanted / 2; i-- > 0;) sift(values, positions, wanted, i);
  for (size_t i = wanted; i < count; i++) {
    if (!after(values, positions[0], i)) continue;
    positions[0] = i;
    sift(values, positions, wanted, 0);
  }
  for (size_t end = wanted; end > 1; end--) {
    size_t last = positions[0];
    positions[0] = positions[end - 1];
    positions[end - 1] = last;
    sift(values, positions, end - 1, 0);
  }
}
