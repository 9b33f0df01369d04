#include "sampling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"

const Sampling GREEDY = {.top_p = 1, .repetition_penalty = 1};

typedef struct {
  int64_t id;
  double logit, weight;
} Candidate;

struct Sampler {
  Sampling how;
  size_t vocabulary;
  uint64_t random;
  bool *seen;
  float *logits;
  Candidate *candidates;
};

void check_sampling(const Sampling *s) {
  bool warm = s->temperature >= 0.001 && s->temperature <= 1000;
  if (!warm && s->temperature != 0) fail(EXIT_USAGE, "--temperature must be a number in 0.001..1000, or 0");
  if (!(s->top_p > 0 && s->top_p <= 1)) fail(EXIT_USAGE, "--top-p must be a number above 0 and at most 1");
  if (!(s->repetition_penalty >= 0.001 && s->repetition_penalty <= 1000)) {
    fail(EXIT_USAGE, "--repetition-penalty must be a number in 0.001..1000");
  }
  if (s->temperature == 0 && (s->top_k != 0 || s->top_p != 1)) {
    fail(EXIT_USAGE, "%s has no effect at temperature 0; give a temperature above 0",
         s->top_k != 0 ? "--top-k" : "--top-p");
  }
}

Sampler *sampler_new(const Sampling *sampling, size_t vocabulary) {
  Sampler *sampler = allocate(1, sizeof *sampler);
  sampler->how = *sampling;
  sampler->vocabulary = vocabulary;
  sampler->random = (uint64_t)sampling->seed;
  sampler->seen = allocate(vocabulary, sizeof *sampler->seen);
  sampler->logits = allocate(vocabulary, sizeof *sampler->logits);
  sampler->candidates = allocate(vocabulary, sizeof *sampler->candidates);
  return sampler;
}

void sampler_release(Sampler *sampler) {
  free(sampler->seen);
  free(sampler->logits);
  free(sampler->candidates);
  free(sampler);
}

void sampler_see(Sampler *sampler, int64_t token) { sampler->seen[token] = true; }

/* SplitMix64: a multiple of 2^-53 in [0, 1). */
static double next_fraction(Sampler *sampler) {
  uint64_t bits = sampler->random += 0x9E3779B97F4A7C15u;
  bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9u;
  bits = (bits ^ bits >> 27) * 0x94D049BB133111EBu;
  return (double)((bits ^ bits >> 31) >> 11) * 0x1p-53;
}

/* e^x for x <= 0 of correctly rounded operations only; a library's exp differs between machines. */
static double exp_of_negative(double x) {
  static const double factorials[] = {6227020800.0, 479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0,
                                      720.0,        120.0,       24.0,       6.0,       2.0,      1.0,     1.0};
  if (x < -700) return 0;
  double powers = rint(x * 1.4426950408889634);
  double rest = (x - powers * 6.93147180369123816490e-01) - powers * 1.90821492927058770002e-10;
  double result = 1.0 / factorials[0];
  for (size_t i = 1; i < sizeof factorials / sizeof *factorials; i++) result = result * rest + 1.0 / factorials[i];
  return ldexp(result, (int)powers);
}

static int by_logit(const void *left, const void *right) {
  const Candidate *a = left, *b = right;
  if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
  return (a->id > b->id) - (a->id < b->id);
}

static int by_id(const void *left, const void *right) {
  const Candidate *a = left, *b = right;
  return (a->id > b->id) - (a->id < b->id);
}

static int64_t draw(Sampler *sampler, double largest) {
  const Sampling *how = &sampler->how;
  Candidate *candidates = sampler->candidates;
  size_t count = sampler->vocabulary;
  bool limited = how->top_k > 0 && (uint64_t)how->top_k < count;
  double total = 0, sum = 0;
  for (size_t i = 0; i < count; i++) {
    candidates[i] = (Candidate){.id = (int64_t)i, .logit = sampler->logits[i]};
  }
  if (limited || how->top_p < 1) qsort(candidates, count, sizeof *candidates, by_logit);
  if (limited) count = (size_t)how->top_k;
  for (size_t i = 0; i < count; i++) {
    candidates[i].weight = exp_of_negative((candidates[i].logit - largest) / how->temperature);
    total += candidates[i].weight;
  }
  if (how->top_p < 1) {
    size_t kept = 0;
    for (; kept == 0 || (kept < count && sum < how->top_p * total); kept++) sum += candidates[kept].weight;
    count = kept;
  }
  if (limited || how->top_p < 1) qsort(candidates, count, sizeof *candidates, by_id);
  total = sum = 0;
  for (size_t i = 0; i < count; i++) total += candidates[i].weight;
  double wanted = next_fraction(sampler) * total;
  for (size_t i = 0; i < count; i++) {
    sum += candidates[i].weight;
    if (sum > wanted) return candidates[i].id;
  }
  return candidates[count - 1].id;
}

int64_t sampler_choose(Sampler *sampler, const float *logits) {
  float penalty = (float)sampler->how.repetition_penalty;
  float *own = sampler->logits;
  size_t best = 0;
  memcpy(own, logits, sampler->vocabulary * sizeof *own);
  for (size_t i = 0; i < sampler->vocabulary; i++) {
    if (sampler->seen[i] && penalty != 1) own[i] = own[i] > 0 ? own[i] / penalty : own[i] * penalty;
    if (!isfinite(own[i])) {
      fail(EXIT_FAULT, "the model's logits are not finite; compile the bundle again from a sound checkpoint");
    }
    if (own[i] > own[best]) best = i;
  }
  int64_t token = sampler->how.temperature == 0 ? (int64_t)best : draw(sampler, own[best]);
  sampler_see(sampler, token);
  return token;
}
