/* How much processor time Linux' control groups leave to this process. */
#ifndef EDGEQ_QUOTA_H
#define EDGEQ_QUOTA_H

#include "names.h"

/* Whole cores that the groups of this process, the outer ones included, may keep busy: at least 1, and INT_MAX where
 * nothing limits it. `root` goes before the paths of the system's files; it is "" but in tests. */
int quota_cores(const char *root);

#endif
