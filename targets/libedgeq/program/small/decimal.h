/* Doubles and their exact decimal digits, in both directions, without floating-point arithmetic that could round. */
#ifndef EDGEQ_DECIMAL_H
#define EDGEQ_DECIMAL_H

#include <stddef.h>

enum { MOST_DIGITS = 800 /* no double has more than 767, and none lies between others that agree in so many */ };

/* 0.DIGITS * 10^point; zero has no digits. */
typedef struct {
  int count;
  int point;
  char digits[MOST_DIGITS]; /* values 0 to 9 */
} Decimal;

/* The digits of a finite number that is not negative, all of them. */
void decimal_of(double value, Decimal *result);

/* Leaves only the first `count` digits; of two nearest the one whose last digit is even. */
void decimal_round(Decimal *decimal, int count);

/* The nearest double, of two the even one; infinity if it is too large. */
double decimal_value(Decimal *decimal);

#endif
