#include "platform.h"

#if defined(__APPLE__)

#include <string.h>
#include <sys/sysctl.h>
#include <unistd.h>

int available_cores(void) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  return cores > 0 ? (int)cores : 1;
}

void thread_bind(Thread *thread, const int32_t *processors, int32_t count) {
  (void)thread, (void)processors, (void)count; /* the system chooses */
}

bool system_names_flag(const char *flag) {
  static const char *const names[][2] = {{"asimd", "hw.optional.AdvSIMD"},
                                         {"asimddp", "hw.optional.arm.FEAT_DotProd"},
                                         {"i8mm", "hw.optional.arm.FEAT_I8MM"},
                                         {"sha2", "hw.optional.arm.FEAT_SHA256"}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    int has = 0;
    size_t size = sizeof has;
    if (strcmp(flag, names[i][0]) != 0) continue;
    return sysctlbyname(names[i][1], &has, &size, NULL, 0) == 0 && has != 0;
  }
  return false;
}

#endif
