/* What this processor has: the instructions that the bundle's code uses, and cores. */
#ifndef EDGEQ_CPU_H
#define EDGEQ_CPU_H

#include <stdbool.h>

/* `flag` is named as in /proc/cpuinfo. A flag that this program does not know counts as present. */
bool cpu_has(const char *flag);

/* Cores that this process may use. */
int available_cores(void);

#endif
