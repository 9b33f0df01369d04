/* Options that would change nothing: those of another task than the bundle's, or of another job. */
#ifndef EDGEQ_TASK_OPTIONS_H
#define EDGEQ_TASK_OPTIONS_H

#include "options.h"

/* Stops the program if one was given. */
void check_task_options(const Options *options, const char *task);

#endif
