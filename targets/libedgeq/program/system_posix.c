#include "system.h"

#if !defined(_WIN32)

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <mach-o/dyld.h>
#endif

char **program_arguments(int *count, char **arguments) {
  (void)count;
  return arguments;
}

FILE *open_file(const char *path, const char *mode) {
  if (mode[0] != 'r') return fopen(path, mode);
  int handle = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  FILE *file = handle >= 0 ? fdopen(handle, mode) : NULL;
  if (file == NULL && handle >= 0) close(handle);
  return file;
}

intmax_t regular_file_bytes(FILE *file) {
  struct stat status;
  return fstat(fileno(file), &status) == 0 && S_ISREG(status.st_mode) ? (intmax_t)status.st_size : -1;
}

bool rename_file(const char *from, const char *to) { return rename(from, to) == 0; }

const char *program_path(void) {
  static char path[4096];
#if defined(__linux__)
  ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length > 0) return path;
  return (const char *)getauxval(AT_EXECFN); /* without /proc: as it was started */
#elif defined(__APPLE__)
  uint32_t size = sizeof path;
  return _NSGetExecutablePath(path, &size) == 0 ? path : NULL;
#else
  return NULL;
#endif
}

double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

#if defined(__linux__)
long long peak_bytes(void) {
  FILE *status = fopen("/proc/self/status", "r");
  char line[256];
  long long kilobytes = 0;
  while (status != NULL && fgets(line, sizeof line, status) != NULL) {
    if (strncmp(line, "VmHWM:", 6) == 0) kilobytes = strtoll(line + 6, NULL, 10);
  }
  if (status != NULL) fclose(status);
  return kilobytes * 1024;
}
#else
long long peak_bytes(void) {
  struct rusage usage;
  return getrusage(RUSAGE_SELF, &usage) == 0 ? (long long)usage.ru_maxrss : 0; /* macOS counts bytes */
}
#endif

#endif
