#include "decimal.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
  FRACTION = 53,         /* bits of a double */
  LEAST_EXPONENT = -1074, /* of its last bit */
  LIMBS = 90,            /* of nine digits each: more than any double has */
  SHIFT = 58             /* bits: ten times a value of so many fits 64 */
};
static const uint32_t LIMB = 1000000000;

static void multiply(uint32_t *limbs, int *count, uint32_t factor) {
  uint64_t carry = 0;
  for (int i = 0; i < *count; i++) {
    carry += (uint64_t)limbs[i] * factor;
    limbs[i] = (uint32_t)(carry % LIMB);
    carry /= LIMB;
  }
  if (carry > 0) limbs[(*count)++] = (uint32_t)carry;
}

static void strip_zeros(Decimal *decimal) {
  while (decimal->count > 0 && decimal->digits[decimal->count - 1] == 0) decimal->count--;
  if (decimal->count == 0) decimal->point = 0;
}

void decimal_of(double value, Decimal *result) {
  int exponent = 0, count = 0;
  uint64_t rest = (uint64_t)ldexp(frexp(value, &exponent), FRACTION);
  uint32_t limbs[LIMBS];
  exponent -= FRACTION;
  for (; rest > 0; rest /= LIMB) limbs[count++] = (uint32_t)(rest % LIMB);
  /* fraction / 2^n is fraction * 5^n / 10^n. */
  for (int i = 0; i < (exponent < 0 ? -exponent : exponent); i++) multiply(limbs, &count, exponent < 0 ? 5 : 2);
  result->count = 0;
  for (int i = count - 1; i >= 0; i--) {
    uint32_t unit = LIMB / 10;
    for (int digit = 0; digit < 9; digit++, unit /= 10) {
      char next = (char)(limbs[i] / unit % 10);
      if (result->count > 0 || next != 0) result->digits[result->count++] = next;
    }
  }
  result->point = result->count + (exponent < 0 ? exponent : 0);
  strip_zeros(result);
}

/* Whether what follows the first `count` digits is more than half of the last of them, or half and that one is odd. */
static bool rounds_up(const Decimal *decimal, int count) {
  if (count < 0 || count >= decimal->count) return false;
  if (decimal->digits[count] != 5 || count + 1 < decimal->count) return decimal->digits[count] >= 5;
  return count > 0 && decimal->digits[count - 1] % 2 == 1;
}

void decimal_round(Decimal *decimal, int count) {
  if (count >= decimal->count) return;
  bool up = rounds_up(decimal, count);
  decimal->count = count > 0 ? count : 0;
  while (up && decimal->count > 0 && decimal->digits[decimal->count - 1] == 9) decimal->count--;
  if (up && decimal->count > 0) {
    decimal->digits[decimal->count - 1]++;
  } else if (up) {
    decimal->digits[decimal->count++] = 1;
    decimal->point++;
  }
  strip_zeros(decimal);
}

/* Divides by 2^bits, at most SHIFT of them. Of digits that have no room it stays known whether there are any: the last
 * one that has is odd then, and so not 0. */
static void halve(Decimal *decimal, int bits) {
  uint64_t rest = 0, mask = ((uint64_t)1 << bits) - 1;
  int read = 0, written = 0;
  while (rest >> bits == 0) rest = 10 * rest + (uint64_t)(read < decimal->count ? decimal->digits[read] : 0), read++;
  decimal->point -= read - 1;
  for (;;) {
    char digit = (char)(rest >> bits);
    rest = 10 * (rest & mask) + (uint64_t)(read < decimal->count ? decimal->digits[read] : 0);
    if (written < MOST_DIGITS) {
      decimal->digits[written++] = digit;
    } else if (digit != 0) {
      decimal->digits[MOST_DIGITS - 1] |= 1;
    }
    if (read++ >= decimal->count && rest == 0) break;
    if (written == MOST_DIGITS && read > decimal->count) {
      decimal->digits[MOST_DIGITS - 1] |= 1;
      break;
    }
  }
  decimal->count = written;
  strip_zeros(decimal);
}

/* Multiplies by 2^bits, at most SHIFT of them; digits without room as above. */
static void twice(Decimal *decimal, int bits) {
  char made[MOST_DIGITS + 20];
  int at = sizeof made;
  uint64_t carry = 0;
  for (int i = decimal->count - 1; i >= 0 || carry > 0; i--) {
    carry += i >= 0 ? (uint64_t)decimal->digits[i] << bits : 0;
    made[--at] = (char)(carry % 10);
    carry /= 10;
  }
  int count = (int)sizeof made - at;
  decimal->point += count - decimal->count;
  decimal->count = count < MOST_DIGITS ? count : MOST_DIGITS;
  memcpy(decimal->digits, made + at, (size_t)decimal->count);
  for (int i = decimal->count; i < count; i++) decimal->digits[MOST_DIGITS - 1] |= made[at + i] != 0;
  strip_zeros(decimal);
}

/* The nearest whole number of one that has less than 20 digits. */
static uint64_t whole(Decimal *decimal) {
  uint64_t result = 0;
  decimal_round(decimal, decimal->point);
  for (int i = 0; i < decimal->point; i++) result = 10 * result + (uint64_t)(i < decimal->count ? decimal->digits[i] : 0);
  return result;
}

double decimal_value(Decimal *decimal) {
  int exponent = 0; /* the number is what `decimal` says times 2^exponent */
  if (decimal->count == 0 || decimal->point < -330) return 0;
  if (decimal->point > 310) return INFINITY;
  /* To 1/2 or more and less than 1, in steps that leave digits enough. */
  while (decimal->point > 0) {
    int bits = decimal->point > 17 ? SHIFT : 3 * decimal->point + 1;
    halve(decimal, bits);
    exponent += bits;
  }
  while (decimal->point < 0 || decimal->digits[0] < 5) {
    int bits = decimal->point < -17 ? SHIFT - 2 : decimal->point < 0 ? -3 * decimal->point : 1;
    twice(decimal, bits);
    exponent -= bits;
  }
  int bits = exponent - FRACTION < LEAST_EXPONENT ? exponent - LEAST_EXPONENT : FRACTION;
  if (bits < 0) return 0; /* less than half of the smallest number */
  twice(decimal, bits);
  return ldexp((double)whole(decimal), exponent - bits);
}
