#include "number_text.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { DIGITS = 9, LEAST_EXPONENT = -4, FRACTION = 24 /* bits of a float */ };

/* fraction * 2^shift, rounded to the nearest integer, of two the even one; fails if it does not fit 64 bits. */
static bool rounded(uint64_t fraction, int shift, uint64_t *result) {
  if (shift >= 0) {
    if (shift > 63 || fraction > UINT64_MAX >> shift) return false;
    *result = fraction << shift;
    return true;
  }
  if (shift < -63) return false;
  uint64_t half = (uint64_t)1 << (-shift - 1), rest = fraction & (2 * half - 1);
  *result = fraction >> -shift;
  *result += rest > half || (rest == half && (*result & 1) == 1);
  return true;
}

/* value = digits * 10^(exponent - DIGITS + 1), with all nine digits, for a positive float whose exponent is between
 * LEAST_EXPONENT and DIGITS - 1. The arithmetic is exact: a float's 24 bits times 5^12 fit 64. */
static bool decimal(double value, uint64_t *digits, int *exponent) {
  static const double limits[] = {1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9};
  int binary = 0, place = 0, count = sizeof limits / sizeof *limits;
  if (!(value >= limits[0] && value < limits[count - 1]) || (double)(float)value != value) return false;
  while (value >= limits[place + 1]) place++;
  *exponent = place + LEAST_EXPONENT;
  uint64_t fraction = (uint64_t)ldexp(frexp(value, &binary), FRACTION);
  int tens = DIGITS - 1 - *exponent;
  for (int i = 0; i < tens; i++) fraction *= 5;
  if (!rounded(fraction, binary - FRACTION + tens, digits)) return false;
  /* Just below a power of ten, what is rounded has a digit more. */
  return *digits < 1000000000;
}

size_t number_text(double value, char text[NUMBER_SIZE]) {
  uint64_t digits = 0;
  int exponent = 0;
  char reversed[DIGITS], *out = text;
  if (!decimal(fabs(value), &digits, &exponent)) return (size_t)snprintf(text, NUMBER_SIZE, "%.9g", value);
  int count = DIGITS;
  for (int i = 0; i < DIGITS; i++, digits /= 10) reversed[i] = (char)('0' + digits % 10);
  while (count > 1 && reversed[DIGITS - count] == '0') count--; /* zeros at the end are left out */
  if (value < 0) *out++ = '-';
  if (exponent < 0) {
    memcpy(out, "0.0000", 6);
    out += 1 - exponent;
  }
  for (int i = 0; i < count; i++) {
    if (i == exponent + 1 && exponent >= 0) *out++ = '.';
    *out++ = reversed[DIGITS - 1 - i];
  }
  for (int i = count; i <= exponent; i++) *out++ = '0';
  *out = '\0';
  return (size_t)(out - text);
}
