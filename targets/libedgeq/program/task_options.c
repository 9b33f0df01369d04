#include "task_options.h"

#include <string.h>

#include "stop.h"

/* The job that an option asks for, in the order in which main.c looks for it, and that option; its name stays NULL where the
 * bundle's own task is to be done. */
static JobKind job_of(const Options *options, const char *task, const char **name) {
  static const struct {
    const char *task;
    JobKind job;
  } known[] = {{"tag", JOB_TAG}, {"answer", JOB_ANSWER}, {"fill", JOB_FILL}};
  if (options->tokens) return *name = "--tokens", JOB_TOKENS;
  if (options->generate) return *name = "--generate", JOB_GENERATE;
  if (options->self_test) return *name = "--self-test", JOB_RAW;
  if (options->profile != NULL) return *name = "--profile", JOB_RAW;
  if (options->tensors != NULL) return *name = "--tensors", JOB_RAW;
  if (options->raw) return *name = "--raw", JOB_RAW;
  if (options->repeat > 0) return *name = "--repeat", JOB_IDS;
  if (options->ids != NULL) return *name = "--ids", JOB_IDS;
  if (options->query != NULL) return *name = "--query", JOB_RANK;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(known[i].task, task) == 0) return known[i].job;
  }
  return JOB_READ;
}

void check_task_options(const Options *options, const char *task) {
  const char *name = NULL, *refused = options->refused[job_of(options, task, &name)];
  if (refused == NULL) return;
  if (name != NULL) stop(EXIT_USAGE, "%s does not apply with %s; leave it out", refused, name);
  stop(EXIT_USAGE, "the bundle is for '%s', so %s does not apply; leave it out", task, refused);
}
