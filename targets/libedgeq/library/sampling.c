#include "sampling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "numerics.h"

/* Tokens among which top_p looks first; then among eight times as many. The result does not depend on it. */
enum { FIRST_NUCLEUS = 64 };

struct Sampler {
  Sampling how;
  size_t vocabulary;
  uint64_t random;
  bool *seen;
  float *logits;
  double *kept, *weights; /* logits and weights of the tokens that may be drawn, by id */
  size_t *ids, *order;
};

void check_sampling(const Memory *memory, const Sampling *s, edgeq_status status) {
  bool warm = s->temperature >= 0.001 && s->temperature <= 1000;
  if (!warm && s->temperature != 0) fail(memory, status, "temperature must be a number in 0.001..1000, or 0");
  if (!(s->top_p > 0 && s->top_p <= 1)) fail(memory, status, "top_p must be a number above 0 and at most 1");
  if (!(s->repetition_penalty >= 0.001 && s->repetition_penalty <= 1000)) {
    fail(memory, status, "repetition_penalty must be a number in 0.001..1000");
  }
  if (s->temperature == 0 && (s->top_k != 0 || s->top_p != 1)) {
    fail(memory, status, "%s has no effect at temperature 0; give a temperature above 0",
         s->top_k != 0 ? "top_k" : "top_p");
  }
}

Sampler *sampler_new(Memory *memory, const Sampling *sampling, size_t vocabulary) {
  Sampler *sampler = allocate(memory, 1, sizeof *sampler);
  sampler->how = *sampling;
  sampler->vocabulary = vocabulary;
  sampler->random = (uint64_t)sampling->seed;
  sampler->seen = allocate(memory, vocabulary, sizeof *sampler->seen);
  sampler->logits = allocate(memory, vocabulary, sizeof *sampler->logits);
  if (sampling->temperature == 0) return sampler; /* the most likely token needs no weights */
  sampler->kept = allocate(memory, vocabulary, sizeof *sampler->kept);
  sampler->weights = allocate(memory, vocabulary, sizeof *sampler->weights);
  sampler->ids = allocate(memory, vocabulary, sizeof *sampler->ids);
  sampler->order = allocate(memory, vocabulary, sizeof *sampler->order);
  return sampler;
}

void sampler_see(Sampler *sampler, int64_t token) { sampler->seen[token] = true; }

/* SplitMix64: a multiple of 2^-53 in [0, 1). */
static double next_fraction(Sampler *sampler) {
  uint64_t bits = sampler->random += 0x9E3779B97F4A7C15u;
  bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9u;
  bits = (bits ^ bits >> 27) * 0x94D049BB133111EBu;
  return (double)((bits ^ bits >> 31) >> 11) * 0x1p-53;
}

static int ascending(const void *left, const void *right) {
  size_t a = *(const size_t *)left, b = *(const size_t *)right;
  return (a > b) - (a < b);
}

/* Tokens that top_k keeps, by id; returns how many. */
static size_t keep_top_k(Sampler *sampler) {
  size_t count = sampler->vocabulary;
  for (size_t i = 0; i < count; i++) {
    sampler->kept[i] = sampler->logits[i];
    sampler->ids[i] = i;
  }
  if (sampler->how.top_k == 0 || (uint64_t)sampler->how.top_k >= count) return count;
  size_t wanted = (size_t)sampler->how.top_k;
  largest(sampler->kept, count, wanted, sampler->ids);
  qsort(sampler->ids, wanted, sizeof *sampler->ids, ascending);
  for (size_t i = 0; i < wanted; i++) sampler->kept[i] = sampler->logits[sampler->ids[i]];
  return wanted;
}

/* Of those, the most likely that together have top_p of the weight; few usually do, so not all are sorted. */
static size_t keep_top_p(Sampler *sampler, size_t count, double total) {
  double wanted = sampler->how.top_p * total, sum = 0;
  size_t looked = FIRST_NUCLEUS < count ? FIRST_NUCLEUS : count, kept = 0;
  for (;;) {
    largest(sampler->kept, count, looked, sampler->order);
    sum = 0;
    for (kept = 0; kept == 0 || (kept < looked && sum < wanted); kept++) sum += sampler->weights[sampler->order[kept]];
    if (sum >= wanted || looked == count) break;
    looked = looked * 8 < count ? looked * 8 : count;
  }
  qsort(sampler->order, kept, sizeof *sampler->order, ascending);
  /* Positions ascend, so each is read before it is overwritten. */
  for (size_t i = 0; i < kept; i++) {
    sampler->weights[i] = sampler->weights[sampler->order[i]];
    sampler->ids[i] = sampler->ids[sampler->order[i]];
  }
  return kept;
}

static int64_t draw(Sampler *sampler, double largest_logit) {
  const Sampling *how = &sampler->how;
  size_t count = keep_top_k(sampler);
  double total = 0, sum = 0;
  for (size_t i = 0; i < count; i++) {
    sampler->weights[i] = exp_of_negative((sampler->kept[i] - largest_logit) / how->temperature);
    total += sampler->weights[i];
  }
  if (how->top_p < 1) {
    count = keep_top_p(sampler, count, total);
    total = 0;
    for (size_t i = 0; i < count; i++) total += sampler->weights[i];
  }
  double wanted = next_fraction(sampler) * total;
  for (size_t i = 0; i < count; i++) {
    sum += sampler->weights[i];
    if (sum > wanted) return (int64_t)sampler->ids[i];
  }
  return (int64_t)sampler->ids[count - 1];
}

void check_finite(const Memory *memory, const float *logits, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (!isfinite(logits[i])) {
      fail(memory, EDGEQ_FAILED, "the model's logits are not finite; compile the bundle again from a sound checkpoint");
    }
  }
}

int64_t sampler_choose(const Memory *memory, Sampler *sampler, const float *logits, const int64_t *banned, size_t banned_count) {
  float penalty = (float)sampler->how.repetition_penalty;
  float *own = sampler->logits;
  size_t best = 0;
  memcpy(own, logits, sampler->vocabulary * sizeof *own);
  for (size_t i = 0; i < sampler->vocabulary && penalty != 1; i++) {
    if (sampler->seen[i]) own[i] = own[i] > 0 ? own[i] / penalty : own[i] * penalty;
  }
  check_finite(memory, own, sampler->vocabulary);
  for (size_t i = 0; i < banned_count; i++) own[banned[i]] = -INFINITY;
  for (size_t i = 1; i < sampler->vocabulary; i++) {
    if (own[i] > own[best]) best = i;
  }
  if (isinf(own[best])) {
    fail(memory, EDGEQ_USAGE, "no token is left that may come next; allow repetitions, or ask for fewer tokens");
  }
  int64_t token = sampler->how.temperature == 0 ? (int64_t)best : draw(sampler, own[best]);
  sampler_see(sampler, token);
  return token;
}
