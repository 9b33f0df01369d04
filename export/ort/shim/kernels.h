/* The compiled kernels: one family for each instruction set that the library was built for.
 *
 * The table itself is written when the library is built, best family first. */
#ifndef EDGEQ_ORT_KERNELS_H
#define EDGEQ_ORT_KERNELS_H

#include <tvm/ffi/c_api.h>

typedef int (*Kernel)(void *self, const TVMFFIAny *args, int32_t count, TVMFFIAny *result);

enum { BIT_WIDTHS = 4 }; /* 1, 2, 4 and 8 bits, in this order */

typedef struct {
  const char *name;
  const char *const *cpu_flags; /* as in /proc/cpuinfo; ends with NULL */
  Kernel quantize_dynamic;
  Kernel quantize_static;
  Kernel attention;
  Kernel product[BIT_WIDTHS];
  Kernel weight_only[BIT_WIDTHS];
  Kernel embedding[BIT_WIDTHS];
} KernelFamily;

extern const KernelFamily kernel_families[];
extern const int kernel_family_count;

/* The best family that this processor can run, or the one that EDGEQ_ORT_KERNELS names; NULL if there is none. */
const KernelFamily *chosen_family(void);

/* Place of a bit width in the tables above, or -1. */
int bit_width_index(int64_t bits);

#endif
