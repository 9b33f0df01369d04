#include "platform.h"

#if defined(__linux__)

#include <sched.h>
#include <string.h>

#include "quota.h"

int available_cores(void) {
  cpu_set_t set;
  int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1, quota = quota_cores("");
  return quota < cores ? quota : cores;
}

#if defined(__ANDROID__)
void thread_bind(Thread *thread, const int32_t *processors, int32_t count) {
  (void)thread, (void)processors, (void)count; /* its C library binds only the calling thread */
}
#else
void thread_bind(Thread *thread, const int32_t *processors, int32_t count) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  for (int32_t i = 0; i < count; i++) {
    if (processors[i] >= 0 && processors[i] < CPU_SETSIZE) CPU_SET(processors[i], &cores);
  }
  pthread_setaffinity_np(*thread, sizeof cores, &cores);
}
#endif

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

bool system_names_flag(const char *flag) {
  unsigned long has = getauxval(AT_HWCAP);
  if (strcmp(flag, "asimd") == 0) return (has & HWCAP_ASIMD) != 0;
  if (strcmp(flag, "asimddp") == 0) return (has & HWCAP_ASIMDDP) != 0;
  if (strcmp(flag, "sha2") == 0) return (has & HWCAP_SHA2) != 0;
  if (strcmp(flag, "crc32") == 0) return (has & HWCAP_CRC32) != 0;
  if (strcmp(flag, "i8mm") == 0) return (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
  return false;
}

#elif defined(__arm__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

bool system_names_flag(const char *flag) {
  unsigned long has = getauxval(AT_HWCAP);
  if (strcmp(flag, "neon") == 0) return (has & HWCAP_NEON) != 0;
  if (strcmp(flag, "vfpv4") == 0) return (has & HWCAP_VFPv4) != 0;
  return false;
}

#else

bool system_names_flag(const char *flag) {
  (void)flag;
  return false;
}

#endif

#endif
