/* How texts are generated: what the model's generation_config.json says (in the manifest), and what the caller changes. */
#ifndef EDGEQ_SETTINGS_H
#define EDGEQ_SETTINGS_H

#include "json.h"
#include "sampling.h"

/* Beam search. */
typedef struct {
  int64_t count; /* 1: no beam search */
  double length_penalty;
  int32_t early_stopping; /* EDGEQ_EARLY ... */
} Beams;

enum { MOST_BEAMS = 64 };

/* Lengths are -1 where nothing is said. Those of texts count what comes before the first new token, as in
 * transformers: the prompt, or the token that starts a text. Those of new tokens go before them. */
typedef struct {
  Sampling sampling;
  int64_t filter_top_k; /* what tokens are drawn with where the caller asks for a temperature and the model has none */
  double filter_top_p;
  Beams beams;
  int64_t no_repeat_ngram_size; /* no sequence of so many tokens comes twice; 0 allows all */
  int64_t min_length, max_length, min_new_tokens, max_new_tokens;
  bool renormalizes; /* beams: what is left after all rules counts as all there is */
} Settings;

/* The table `settings` of a manifest. */
Settings read_settings(const Json *json, const JsonValue *table);

/* Settings with what the caller changes; fails with EDGEQ_USAGE if they make no sense. */
Settings changed_settings(const Memory *memory, const Settings *settings, const edgeq_generation *changes);

/* Tokens to make after `prefix` tokens, at most and at least; `otherwise` where nothing is said. */
int64_t most_new_tokens(const Settings *settings, int64_t prefix, int64_t otherwise);
int64_t fewest_new_tokens(const Settings *settings, int64_t prefix);

#endif
