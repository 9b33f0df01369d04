#include "cpu.h"

#include <sched.h>
#include <stddef.h>
#include <string.h>

int available_cores(void) {
  cpu_set_t cores;
  return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

bool cpu_has(const char *flag) {
  unsigned long has = getauxval(AT_HWCAP);
  if (strcmp(flag, "asimd") == 0) return (has & HWCAP_ASIMD) != 0;
  if (strcmp(flag, "asimddp") == 0) return (has & HWCAP_ASIMDDP) != 0;
  if (strcmp(flag, "i8mm") == 0) return (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
  return true;
}

#elif defined(__arm__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

bool cpu_has(const char *flag) {
  unsigned long has = getauxval(AT_HWCAP);
  if (strcmp(flag, "neon") == 0) return (has & HWCAP_NEON) != 0;
  if (strcmp(flag, "vfpv4") == 0) return (has & HWCAP_VFPv4) != 0;
  return true;
}

#elif defined(__x86_64__)
#include <cpuid.h>

/* Older compilers do not know the name. The registers that it uses are those of AVX2, which is asked for besides. */
static bool has_avx_vnni(void) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1u << 4)) != 0;
}

bool cpu_has(const char *flag) {
  if (strcmp(flag, "avx2") == 0) return __builtin_cpu_supports("avx2") != 0;
  if (strcmp(flag, "fma") == 0) return __builtin_cpu_supports("fma") != 0;
  if (strcmp(flag, "bmi2") == 0) return __builtin_cpu_supports("bmi2") != 0;
  if (strcmp(flag, "avx512f") == 0) return __builtin_cpu_supports("avx512f") != 0;
  if (strcmp(flag, "avx512bw") == 0) return __builtin_cpu_supports("avx512bw") != 0;
  if (strcmp(flag, "avx512dq") == 0) return __builtin_cpu_supports("avx512dq") != 0;
  if (strcmp(flag, "avx512vl") == 0) return __builtin_cpu_supports("avx512vl") != 0;
  if (strcmp(flag, "avx512_vnni") == 0) return __builtin_cpu_supports("avx512vnni") != 0;
  if (strcmp(flag, "avx_vnni") == 0) return has_avx_vnni();
  return true;
}

#else

bool cpu_has(const char *flag) { return flag != NULL; }

#endif
