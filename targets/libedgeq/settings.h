/* How texts are made: what the model's generation_config.json says (in the manifest), and what the caller changes. */
#ifndef EDGEQ_SETTINGS_H
#define EDGEQ_SETTINGS_H

#include "json.h"
#include "sampling.h"

typedef enum { NEVER_EARLY, EARLY, HEURISTIC } EarlyStopping;

/* Beam search; see targets/runtime/beams.py. */
typedef struct {
  int64_t count; /* 1: no beam search */
  double length_penalty;
  EarlyStopping early_stopping;
} Beams;

enum { MOST_BEAMS = 64 };

/* Lengths are -1 where nothing is said. Those of texts count what comes before the first new token, as in
 * transformers: the prompt, or the token that starts a text. Those of new tokens go before them. */
typedef struct {
  Sampling sampling;
  Beams beams;
  int64_t no_repeat_ngram_size; /* no sequence of so many tokens comes twice; 0 allows all */
  int64_t min_length, max_length, min_new_tokens, max_new_tokens;
} Settings;

/* What the command line says; a number that is not given is NaN, an integer -1, a text NULL. */
typedef struct {
  double temperature, top_p, repetition_penalty, length_penalty;
  int64_t top_k, seed, beams, no_repeat_ngram_size, min_new_tokens, max_new_tokens;
  const char *early_stopping;
} Changes;

/* Nothing is changed. */
extern const Changes NO_CHANGES;

/* Whether anything is. */
bool any_change(const Changes *changes);

/* The table `settings` of the manifest `file`. */
Settings read_settings(const JsonValue *table, const char *file);

/* Settings with the changes; stops the program with EXIT_USAGE if they make no sense. */
Settings changed_settings(const Settings *settings, const Changes *changes);

/* Tokens to make after `prefix` tokens, at most and at least; `otherwise` where nothing is said. */
int64_t most_new_tokens(const Settings *settings, int64_t prefix, int64_t otherwise);
int64_t fewest_new_tokens(const Settings *settings, int64_t prefix);

#endif
