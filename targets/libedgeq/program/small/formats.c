/* printf and its family as far as this program and the library use them, strtod and strtoll. The C library's take 27 KB of a
 * static program, most of it for long doubles. What they print and read is the same. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decimal.h"

/* Where formatted text goes: into a file or, if there is none, into `text`, of which `size` bytes are left. */
typedef struct {
  FILE *file;
  char *text;
  size_t size;
  size_t written;
} Sink;

typedef struct {
  int width;     /* filled up with zeros */
  int precision; /* -1 if there is none */
} Layout;

enum { NUMBER = 400 /* characters: more than a double takes with the digits that anybody asks for */ };

static void emit(Sink *sink, const char *text, size_t size) {
  if (sink->file != NULL) {
    fwrite(text, 1, size, sink->file);
  } else if (sink->written < sink->size) {
    size_t left = sink->size - sink->written;
    memcpy(sink->text + sink->written, text, size < left ? size : left);
  }
  sink->written += size;
}

static void emit_integer(Sink *sink, uint64_t value, bool is_negative, unsigned base, Layout layout) {
  char digits[24];
  int at = sizeof digits;
  for (; value > 0 || at == sizeof digits; value /= base) digits[--at] = "0123456789abcdef"[value % base];
  while ((int)sizeof digits - at < layout.width) digits[--at] = '0';
  if (is_negative) digits[--at] = '-';
  emit(sink, digits + at, sizeof digits - (size_t)at);
}

/* Digits from one place to another, with zeros where there are none; the point stands before place `point`. */
static char *put_digits(char *out, const Decimal *decimal, int from, int to, int point) {
  for (int place = from; place < to; place++) {
    if (place == point) *out++ = '.';
    *out++ = (char)('0' + (place >= 0 && place < decimal->count ? decimal->digits[place] : 0));
  }
  return out;
}

static char *put_power(char *out, int power) {
  *out++ = 'e';
  *out++ = power < 0 ? '-' : '+';
  power = abs(power);
  if (power >= 100) *out++ = (char)('0' + power / 100);
  *out++ = (char)('0' + power / 10 % 10);
  *out++ = (char)('0' + power % 10);
  return out;
}

/* As %.Nf, or as %.Ng. */
static void emit_double(Sink *sink, double value, bool is_general, int precision) {
  Decimal decimal;
  char text[NUMBER], *out = text;
  if (signbit(value)) *out++ = '-';
  if (!isfinite(value)) {
    memcpy(out, isnan(value) ? "nan" : "inf", 3);
    emit(sink, text, (size_t)(out + 3 - text));
    return;
  }
  decimal_of(fabs(value), &decimal);
  if (is_general) {
    decimal_round(&decimal, precision);
    int first = decimal.count > 0 ? decimal.point - 1 : 0; /* power of ten of the first digit */
    if (first < -4 || first >= precision) {
      out = put_power(put_digits(out, &decimal, 0, decimal.count, 1), first);
      emit(sink, text, (size_t)(out - text));
      return;
    }
    precision = decimal.count > decimal.point ? decimal.count - decimal.point : 0;
  } else {
    decimal_round(&decimal, decimal.point + precision);
  }
  int start = decimal.point > 0 ? 0 : decimal.point - 1; /* at least one digit stands before the point */
  out = put_digits(out, &decimal, start, decimal.point + precision, decimal.point);
  emit(sink, text, (size_t)(out - text));
}

/* One conversion, behind its percent sign; returns what follows it. */
static const char *convert(Sink *sink, const char *format, va_list *arguments) {
  Layout layout = {0, -1};
  int longs = 0;
  while (isdigit((unsigned char)*format)) layout.width = 10 * layout.width + *format++ - '0';
  if (*format == '.') {
    format++;
    layout.precision = 0;
    if (*format == '*') layout.precision = va_arg(*arguments, int), format++;
    while (isdigit((unsigned char)*format)) layout.precision = 10 * layout.precision + *format++ - '0';
  }
  if (*format == 'z') longs = sizeof(size_t) > sizeof(int) ? 2 : 0, format++; /* as long as one of these */
  if (*format == 'j') longs = 2, format++;
  for (; *format == 'l'; format++) longs++;
  switch (*format) {
    case 's': {
      const char *text = va_arg(*arguments, const char *);
      emit(sink, text, layout.precision < 0 ? strlen(text) : strnlen(text, (size_t)layout.precision));
      break;
    }
    case 'd': {
      long long value = longs > 1 ? va_arg(*arguments, long long) : va_arg(*arguments, int);
      emit_integer(sink, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, value < 0, 10, layout);
      break;
    }
    case 'u':
    case 'x': {
      uint64_t value = longs > 1 ? va_arg(*arguments, unsigned long long) : va_arg(*arguments, unsigned);
      emit_integer(sink, value, false, *format == 'x' ? 16 : 10, layout);
      break;
    }
    case 'f':
    case 'g': emit_double(sink, va_arg(*arguments, double), *format == 'g', layout.precision); break;
    case '%': emit(sink, "%", 1); break;
    default: abort(); /* a format that this file does not know; a test looks at all of them */
  }
  return format + 1;
}

static int print(Sink *sink, const char *format, va_list given) {
  va_list arguments;
  va_copy(arguments, given);
  while (*format != '\0') {
    size_t plain = strcspn(format, "%");
    emit(sink, format, plain);
    format += plain;
    if (*format == '%') format = convert(sink, format + 1, &arguments);
  }
  va_end(arguments);
  return (int)sink->written;
}

int vsnprintf(char *text, size_t size, const char *format, va_list arguments) {
  Sink sink = {.text = text, .size = size > 0 ? size - 1 : 0};
  int length = print(&sink, format, arguments);
  if (size > 0) text[sink.written < sink.size ? sink.written : sink.size] = '\0';
  return length;
}

int snprintf(char *text, size_t size, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, size, format, arguments);
  va_end(arguments);
  return length;
}

int printf(const char *format, ...) {
  Sink sink = {.file = stdout};
  va_list arguments;
  va_start(arguments, format);
  int length = print(&sink, format, arguments);
  va_end(arguments);
  return length;
}

int fprintf(FILE *file, const char *format, ...) {
  Sink sink = {.file = file};
  va_list arguments;
  va_start(arguments, format);
  int length = print(&sink, format, arguments);
  va_end(arguments);
  return length;
}

/* Digits of a number; the point that it has read them to. A digit without room still says that something follows. */
static const char *read_digits(const char *text, Decimal *decimal, bool *found) {
  bool behind_point = false;
  for (;; text++) {
    if (*text == '.' && !behind_point) {
      behind_point = true;
      continue;
    }
    if (!isdigit((unsigned char)*text)) return text;
    *found = true;
    if (decimal->count > 0 || *text != '0') {
      if (decimal->count < MOST_DIGITS) {
        decimal->digits[decimal->count++] = (char)(*text - '0');
      } else if (*text != '0') {
        decimal->digits[MOST_DIGITS - 1] |= 1;
      }
      if (!behind_point) decimal->point++;
    } else if (behind_point) {
      decimal->point--;
    }
  }
}

double strtod(const char *text, char **end) {
  Decimal decimal = {.count = 0};
  bool found = false;
  const char *at = text + strspn(text, " \t\n\v\f\r"), *sign = at;
  if (*at == '-' || *at == '+') at++;
  at = read_digits(at, &decimal, &found);
  if (found && (*at == 'e' || *at == 'E')) {
    const char *power = at + 1 + (at[1] == '-' || at[1] == '+');
    int exponent = 0;
    if (isdigit((unsigned char)*power)) {
      for (; isdigit((unsigned char)*power); power++) exponent = exponent < 100000 ? 10 * exponent + *power - '0' : exponent;
      decimal.point += at[1] == '-' ? -exponent : exponent;
      at = power;
    }
  }
  if (end != NULL) *end = (char *)(uintptr_t)(found ? at : text);
  double value = decimal_value(&decimal);
  return *sign == '-' ? -value : value;
}

/* Base 10 only. */
long long strtoll(const char *text, char **end, int base) {
  const char *at = text + strspn(text, " \t\n\v\f\r");
  bool is_negative = *at == '-', fits = true;
  uint64_t value = 0, most = (uint64_t)LLONG_MAX + is_negative;
  (void)base;
  if (*at == '-' || *at == '+') at++;
  const char *digits = at;
  for (; isdigit((unsigned char)*at); at++) {
    unsigned digit = (unsigned)(*at - '0');
    fits = fits && value <= (most - digit) / 10;
    value = fits ? 10 * value + digit : most;
  }
  if (!fits) errno = ERANGE;
  if (end != NULL) *end = (char *)(uintptr_t)(at > digits ? at : text);
  return is_negative ? (long long)(0 - value) : (long long)value;
}
