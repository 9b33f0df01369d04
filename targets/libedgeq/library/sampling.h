/* How the next token is chosen from logits, by operations that give the same bits on every machine. */
#ifndef EDGEQ_SAMPLING_H
#define EDGEQ_SAMPLING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory.h"

typedef struct {
  double temperature; /* 0: the most likely token, always */
  int64_t top_k;      /* 0: all */
  double top_p;
  double repetition_penalty;
  int64_t seed;
} Sampling;

/* Fails with `status` if a value is out of range or has no effect. */
void check_sampling(const Memory *memory, const Sampling *sampling, edgeq_status status);

typedef struct Sampler Sampler;

Sampler *sampler_new(Memory *memory, const Sampling *sampling, size_t vocabulary);

/* Counts a token as part of the sequence: the repetition penalty applies to it. */
void sampler_see(Sampler *sampler, int64_t token);

/* The next token, which counts as seen: none of the `banned_count` banned ones. `logits` has as many values as the
 * vocabulary. */
int64_t sampler_choose(const Memory *memory, Sampler *sampler, const float *logits, const int64_t *banned, size_t banned_count);

/* Fails unless all logits are numbers. */
void check_finite(const Memory *memory, const float *logits, size_t count);

#endif
