#include "cpu.h"

#include <stddef.h>
#include <string.h>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

bool cpu_has(const char *flag) {
  unsigned long has = getauxval(AT_HWCAP);
  if (strcmp(flag, "asimd") == 0) return (has & HWCAP_ASIMD) != 0;
  if (strcmp(flag, "asimddp") == 0) return (has & HWCAP_ASIMDDP) != 0;
  return true;
}

#elif defined(__x86_64__)

bool cpu_has(const char *flag) {
  if (strcmp(flag, "avx2") == 0) return __builtin_cpu_supports("avx2") != 0;
  if (strcmp(flag, "fma") == 0) return __builtin_cpu_supports("fma") != 0;
  if (strcmp(flag, "bmi2") == 0) return __builtin_cpu_supports("bmi2") != 0;
  if (strcmp(flag, "avx512f") == 0) return __builtin_cpu_supports("avx512f") != 0;
  if (strcmp(flag, "avx512bw") == 0) return __builtin_cpu_supports("avx512bw") != 0;
  if (strcmp(flag, "avx512dq") == 0) return __builtin_cpu_supports("avx512dq") != 0;
  if (strcmp(flag, "avx512vl") == 0) return __builtin_cpu_supports("avx512vl") != 0;
  if (strcmp(flag, "avx512_vnni") == 0) return __builtin_cpu_supports("avx512vnni") != 0;
  return true;
}

#else

bool cpu_has(const char *flag) { return flag != NULL; }

#endif
