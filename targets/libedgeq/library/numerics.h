/* Functions of real numbers that give the same bits on every machine: only
 * correctly rounded operations, in a fixed order. A library's exp, log or pow differs between machines. */
#ifndef EDGEQ_NUMERICS_H
#define EDGEQ_NUMERICS_H

#include <stddef.h>
#include <stdint.h>

#include "names.h"

/* e^x for x <= 0; 0 below -700. */
double exp_of_negative(double x);

/* Natural logarithm of a positive normal number. */
double natural_log(double x);

/* A positive integer to a power, between e^-700 and e^700. */
double power(int64_t base, double exponent);

/* Positions of the `wanted` largest of `count` values, from the largest on, of equal ones the first first. */
void largest(const double *values, size_t count, size_t wanted, size_t *positions);

#endif
