#include "quota.h"

#if defined(__linux__)

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_PATH = 4096 };

/* The first line of a file, without its end; false if it cannot be read. */
static bool read_line(const char *path, char *line, int size) {
  FILE *file = fopen(path, "re");
  if (file == NULL) return false;
  bool found = fgets(line, size, file) != NULL;
  fclose(file);
  if (found) line[strcspn(line, "\n")] = '\0';
  return found;
}

/* Rounded down: threads beyond the quota are stopped in the middle of their work for the rest of a period. */
static int whole_cores(long long quota, long long period) {
  if (quota <= 0 || period <= 0) return INT_MAX;
  long long cores = quota / period;
  return cores < 1 ? 1 : cores > INT_MAX ? INT_MAX : (int)cores;
}

/* Version 2: "200000 100000", or "max 100000". */
static int cores_of_group(const char *folder) {
  char path[LONGEST_PATH + 32], line[64];
  snprintf(path, sizeof path, "%s/cpu.max", folder);
  if (!read_line(path, line, sizeof line)) return INT_MAX;
  char *end = NULL;
  long long quota = strtoll(line, &end, 10);
  return whole_cores(quota, strtoll(end, NULL, 10)); /* "max" is no number, and so 0 */
}

/* Version 1: two files, and a quota of -1 for none. */
static int cores_of_old_group(const char *folder) {
  char path[LONGEST_PATH + 32], quota[64], period[64];
  snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
  if (!read_line(path, quota, sizeof quota) || *quota == '-') return INT_MAX;
  snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
  if (!read_line(path, period, sizeof period)) return INT_MAX;
  return whole_cores(strtoll(quota, NULL, 10), strtoll(period, NULL, 10));
}

/* The smallest limit from a group up to the one where `mount` is. In a container the path may be that of the world
 * outside: folders that are not there limit nothing. */
static int smallest(const char *mount, const char *group, int (*cores_of)(const char *folder)) {
  char folder[LONGEST_PATH];
  int length = snprintf(folder, sizeof folder, "%s%s", mount, strcmp(group, "/") == 0 ? "" : group), cores = INT_MAX;
  if (length < 0 || length >= (int)sizeof folder) return INT_MAX;
  for (;;) {
    int found = cores_of(folder);
    cores = found < cores ? found : cores;
    char *last = strrchr(folder + strlen(mount), '/');
    if (last == NULL) return cores;
    *last = '\0';
  }
}

/* One line of /proc/self/cgroup: number:controllers:path. */
static int cores_of_line(const char *root, char *line) {
  char mount[LONGEST_PATH];
  char *controllers = strchr(line, ':'), *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
  if (group == NULL) return INT_MAX;
  *group++ = '\0';
  controllers++;
  if (*controllers == '\0') {
    snprintf(mount, sizeof mount, "%s/sys/fs/cgroup", root);
    return smallest(mount, group, cores_of_group);
  }
  char names[LONGEST_PATH];
  snprintf(names, sizeof names, ",%s,", controllers);
  if (strstr(names, ",cpu,") == NULL) return INT_MAX;
  snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%s", root, controllers);
  int cores = smallest(mount, group, cores_of_old_group);
  if (strcmp(controllers, "cpu") == 0) return cores;
  snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/cpu", root);
  int other = smallest(mount, group, cores_of_old_group);
  return other < cores ? other : cores;
}

int quota_cores(const char *root) {
  char path[LONGEST_PATH], line[LONGEST_PATH];
  int cores = INT_MAX;
  snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
  FILE *file = fopen(path, "re");
  if (file == NULL) return INT_MAX;
  while (fgets(line, sizeof line, file) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    int found = cores_of_line(root, line);
    cores = found < cores ? found : cores;
  }
  fclose(file);
  return cores;
}

#endif
