/* What this processor has: the instructions that the bundle's code uses. */
#ifndef EDGEQ_CPU_H
#define EDGEQ_CPU_H

#include <stdbool.h>

#include "names.h"

/* `flag` is named as in /proc/cpuinfo. A flag that is not known here counts as missing. */
bool cpu_has(const char *flag);

#endif
