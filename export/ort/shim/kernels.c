#include "kernels.h"

#include <stdlib.h>
#include <string.h>

#include "cpu.h"

static int runs_here(const KernelFamily *family) {
  for (const char *const *flag = family->cpu_flags; *flag != NULL; flag++) {
    if (!cpu_has(*flag)) return 0;
  }
  return 1;
}

const KernelFamily *chosen_family(void) {
  const char *wanted = getenv("EDGEQ_ORT_KERNELS");
  for (int i = 0; i < kernel_family_count; i++) {
    const KernelFamily *family = &kernel_families[i];
    if (wanted != NULL && wanted[0] != '\0' && strcmp(wanted, family->name) != 0) continue;
    if (runs_here(family)) return family;
  }
  return NULL;
}

int bit_width_index(int64_t bits) {
  switch (bits) {
    case 1: return 0;
    case 2: return 1;
    case 4: return 2;
    case 8: return 3;
    default: return -1;
  }
}
