/* How the next token is chosen from logits. Defined down to the bit in targets/runtime/sampling.py, so that both
 * runtimes choose the same tokens. */
#ifndef EDGEQ_SAMPLING_H
#define EDGEQ_SAMPLING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
  double temperature; /* 0: the likeliest token, always */
  int64_t top_k;      /* 0: all */
  double top_p;
  double repetition_penalty;
  int64_t seed;
} Sampling;

/* Temperature 0 and nothing else. */
extern const Sampling GREEDY;

/* Stops the program with `code` if a value is out of range or has no effect. */
void check_sampling(const Sampling *sampling, int code);

typedef struct Sampler Sampler;

Sampler *sampler_new(const Sampling *sampling, size_t vocabulary);

/* Counts a token as part of the sequence: the repetition penalty applies to it. */
void sampler_see(Sampler *sampler, int64_t token);

/* The next token, which counts as seen: none of the `banned_count` banned ones. `logits` has as many values as the
 * vocabulary. */
int64_t sampler_choose(Sampler *sampler, const float *logits, const int64_t *banned, size_t banned_count);

void sampler_release(Sampler *sampler);

/* Stops the program unless all logits are numbers. */
void check_finite(const float *logits, size_t count);

#endif
