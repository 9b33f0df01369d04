/* The command line. */
#ifndef EDGEQ_OPTIONS_H
#define EDGEQ_OPTIONS_H

#include <stdbool.h>

#include "sampling.h"

typedef struct {
  const char *bundle, *ids, *tensors, *out, *libraries;
  bool self_test, json, raw, no_verify, ignore_end;
  int64_t repeat, threads, generate; /* 0 if not given */
  Sampling sampling;
} Options;

/* Reads and checks the arguments; stops the program if they make no sense, or after --help. */
Options read_options(int count, char **arguments);

#endif
