/* program/small beside the C library: the same texts, numbers and order. Prints what differs. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double small_strtod(const char *text, char **end);
long long small_strtoll(const char *text, char **end, int base);
int small_snprintf(char *text, size_t size, const char *format, ...);
void small_qsort(void *items, size_t count, size_t size, int (*compare)(const void *left, const void *right));

enum { LONGEST = 2048 };
static int differing;
static uint64_t state = 88172645463325252u;

static uint64_t next_bits(void) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

static double next_number(int i) {
  uint64_t bits = next_bits();
  double number = 0;
  float single = 0;
  switch (i % 5) {
    case 0: memcpy(&number, &bits, sizeof number); break;
    case 1: memcpy(&single, &bits, sizeof single); return single;
    case 2: return (double)(bits >> 11) * 0x1p-53;
    case 3: return (double)(bits % 100000) / 8; /* halves of the last digit */
    default: return (double)(int64_t)(bits % 2000000) / 1000.0 - 1000;
  }
  return number;
}

static void report(const char *what, const char *own, const char *other) {
  if (differing++ < 20) printf("%s: %.99s, the C library says %s\n", what, own, other);
}

#define COMPARE(...)                                                                        \
  do {                                                                                      \
    int length = small_snprintf(own, sizeof own, __VA_ARGS__), wanted = snprintf(other, sizeof other, __VA_ARGS__); \
    if (length != wanted || strcmp(own, other) != 0) report("format", own, other);          \
  } while (0)

static void compare_numbers(void) {
  static const char *const formats[] = {"%.17g", "%.9g", "%.1f", "%.3f", "%.4f", "%.6f", "%.9f"};
  char own[LONGEST], other[LONGEST];
  for (int i = 0; i < 8000; i++) {
    double number = next_number(i);
    if (isnan(number)) continue; /* its sign is nobody's business */
    for (size_t at = 0; at < sizeof formats / sizeof *formats; at++) COMPARE(formats[at], number);
  }
  COMPARE("%.6f and %.9g", NAN, INFINITY);
}

static void compare_reading(const char *text) {
  char *own_end = NULL, *end = NULL;
  double own = small_strtod(text, &own_end), wanted = strtod(text, &end);
  if (memcmp(&own, &wanted, sizeof own) != 0 || own_end != end) report("strtod", text, "something else");
}

static void compare_texts(void) {
  static const char *const texts[] = {"0", "-0.0", "0.1", "1e400", "-1e400", "4.9e-324", "2.4703282292062327e-324",
                                      "2.4703282292062328e-324", "2.2250738585072011e-308", "1.7976931348623158e308",
                                      "1.7976931348623159e308", "9007199254740993", "x", "", ".", ".5", "5.", "1e", "1e+",
                                      "+3e2z", "  7", "00012", "1e-99999999999", "0e99999999999", "1.5e3.7"};
  char text[LONGEST];
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) compare_reading(texts[i]);
  for (int i = 0; i < 8000; i++) {
    snprintf(text, sizeof text, "%llu.%llue%d", (unsigned long long)(next_bits() >> next_bits() % 60),
             (unsigned long long)next_bits(), (int)(next_bits() % 700) - 360);
    compare_reading(text);
    snprintf(text, sizeof text, i % 2 == 0 ? "%.17g" : "%.20e", next_number(i));
    if (strstr(text, "n") == NULL) compare_reading(text);
  }
  for (int i = 0; i < 300; i++) { /* exactly between two numbers, and a digit beyond that */
    double number = fabs(next_number(0)), above = nextafter(number, INFINITY);
    if (!isfinite(above) || number < 1e-290) continue;
    int length = snprintf(text, sizeof text, "%.1100Lf", ((long double)number + (long double)above) / 2);
    compare_reading(text);
    memcpy(text + length, "1", 2);
    compare_reading(text);
  }
}

static void compare_integers(void) {
  static const char *const texts[] = {"0", "-1", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
                                      "-9223372036854775809", "99999999999999999999999", " 12 3", "+5x", "-", "max"};
  char own[LONGEST], other[LONGEST];
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    char *own_end = NULL, *end = NULL;
    if (small_strtoll(texts[i], &own_end, 10) != strtoll(texts[i], &end, 10) || own_end != end) {
      report("strtoll", texts[i], "something else");
    }
  }
  COMPARE("%d %u %zu %lld %llu %ju %02x %08x %s %.*s %.12s%%", -7, 7u, (size_t)1 << 31, -(1LL << 62), ~0ULL, (uintmax_t)5, 10,
          0xBEEFu, "text", 3, "cut off", "at most twelve");
  if (small_snprintf(own, 4, "%s", "too long") != 8 || strcmp(own, "too") != 0) report("size", own, "too");
}

static int by_value(const void *left, const void *right) {
  int a = *(const int *)left, b = *(const int *)right;
  return (a > b) - (a < b);
}

static void compare_order(void) {
  struct {
    int key;
    char rest[20];
  } own[300], other[300];
  for (int i = 0; i < 2000; i++) {
    size_t count = next_bits() % 300;
    int kinds = 1 + (int)(next_bits() % 400);
    memset(own, 0, sizeof own);
    for (size_t at = 0; at < count; at++) {
      own[at].key = i % 4 == 0 ? (int)at : i % 4 == 1 ? -(int)at : (int)(next_bits() % (unsigned)kinds);
      own[at].rest[19] = (char)own[at].key;
    }
    memcpy(other, own, sizeof own);
    small_qsort(own, count, sizeof *own, by_value);
    qsort(other, count, sizeof *other, by_value);
    if (memcmp(own, other, sizeof own) != 0) report("qsort", "wrong", "right");
  }
}

int main(void) {
  compare_numbers();
  compare_texts();
  compare_integers();
  compare_order();
  printf("%d differ\n", differing);
  return differing > 0;
}
