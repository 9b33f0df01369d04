/* What this processor has: the instructions that the bundle's code uses, and cores. */
#ifndef EDGEQ_CPU_H
#define EDGEQ_CPU_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "names.h"

/* `flag` is named as in /proc/cpuinfo. A flag that is not known here counts as missing. */
bool cpu_has(const char *flag);

/* Cores that this process may use. */
int available_cores(void);

/* Lets a thread run on these cores only. A system that does not allow it changes nothing but the speed. */
void bind_thread(pthread_t thread, const int32_t *processors, int32_t count);

#endif
