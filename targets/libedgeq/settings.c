#include "settings.h"

#include <math.h>
#include <string.h>

#include "fail.h"

enum { LARGEST_COUNT = INT32_MAX };
static const double LARGEST_PENALTY = 100;

const Changes NO_CHANGES = {.temperature = NAN,
                            .top_p = NAN,
                            .repetition_penalty = NAN,
                            .length_penalty = NAN,
                            .top_k = -1,
                            .seed = -1,
                            .beams = -1,
                            .no_repeat_ngram_size = -1,
                            .min_new_tokens = -1,
                            .max_new_tokens = -1};

bool any_change(const Changes *c) {
  return !isnan(c->temperature) || !isnan(c->top_p) || !isnan(c->repetition_penalty) || !isnan(c->length_penalty) ||
         c->top_k >= 0 || c->seed >= 0 || c->beams >= 0 || c->no_repeat_ngram_size >= 0 || c->min_new_tokens >= 0 ||
         c->max_new_tokens >= 0 || c->early_stopping != NULL;
}

static double read_number(const JsonValue *table, const char *key, const char *file) {
  const JsonValue *value = json_find(table, key);
  if (value == NULL || (value->kind != JSON_INTEGER && value->kind != JSON_NUMBER)) {
    fail(EXIT_FAULT, "%s: '%s' must be a number", file, key);
  }
  return value->number;
}

static int64_t read_count(const JsonValue *table, const char *key, int64_t least, const char *file) {
  const JsonValue *value = json_find(table, key);
  if (value != NULL && value->kind == JSON_NULL) return -1;
  return json_integer(table, key, least, LARGEST_COUNT, file);
}

static void check_beams(const Beams *beams, int code) {
  if (beams->count < 1 || beams->count > MOST_BEAMS) {
    fail(code, "the number of beams must be an integer in 1..%d", MOST_BEAMS);
  }
  if (!(fabs(beams->length_penalty) <= LARGEST_PENALTY)) {
    fail(code, "--length-penalty must be a number in -100..100");
  }
}

static Beams read_beams(const JsonValue *table, const char *file) {
  Beams beams = {json_integer(table, "count", 1, MOST_BEAMS, file), read_number(table, "length_penalty", file),
                 HEURISTIC};
  const JsonValue *early = json_find(table, "early_stopping");
  if (early != NULL && early->kind == JSON_BOOL) {
    beams.early_stopping = early->boolean ? EARLY : HEURISTIC;
  } else if (early != NULL && early->kind == JSON_TEXT && strcmp(early->text, "never") == 0) {
    beams.early_stopping = NEVER_EARLY;
  } else {
    fail(EXIT_FAULT, "%s: 'early_stopping' must be true, false or \"never\"", file);
  }
  check_beams(&beams, EXIT_FAULT);
  return beams;
}

Settings read_settings(const JsonValue *table, const char *file) {
  const JsonValue *sampling = json_member(table, "sampling", JSON_OBJECT, file);
  Settings settings = {
      .sampling = {.temperature = read_number(sampling, "temperature", file),
                   .top_k = json_integer(sampling, "top_k", 0, UINT32_MAX, file),
                   .top_p = read_number(sampling, "top_p", file),
                   .repetition_penalty = read_number(sampling, "repetition_penalty", file),
                   .seed = json_integer(sampling, "seed", 0, INT64_MAX, file)},
      .beams = read_beams(json_member(table, "beams", JSON_OBJECT, file), file),
      .no_repeat_ngram_size = json_integer(table, "no_repeat_ngram_size", 0, LARGEST_COUNT, file),
      .min_length = json_integer(table, "min_length", 0, LARGEST_COUNT, file),
      .max_length = read_count(table, "max_length", 1, file),
      .min_new_tokens = read_count(table, "min_new_tokens", 0, file),
      .max_new_tokens = read_count(table, "max_new_tokens", 1, file),
  };
  check_sampling(&settings.sampling, EXIT_FAULT);
  return settings;
}

static void change_beams(Beams *beams, const Changes *changes) {
  if (changes->beams >= 0) beams->count = changes->beams;
  if (!isnan(changes->length_penalty)) beams->length_penalty = changes->length_penalty;
  const char *early = changes->early_stopping;
  if (early != NULL) {
    if (strcmp(early, "yes") != 0 && strcmp(early, "no") != 0 && strcmp(early, "never") != 0) {
      fail(EXIT_USAGE, "--early-stopping takes yes, no or never, found '%s'", early);
    }
    beams->early_stopping = early[0] == 'y' ? EARLY : strcmp(early, "no") == 0 ? HEURISTIC : NEVER_EARLY;
  }
  check_beams(beams, EXIT_USAGE);
  if (beams->count == 1 && (early != NULL || !isnan(changes->length_penalty))) {
    fail(EXIT_USAGE, "--length-penalty and --early-stopping belong to beam search; give --num-beams above 1");
  }
}

Settings changed_settings(const Settings *settings, const Changes *changes) {
  Settings result = *settings;
  Sampling *sampling = &result.sampling;
  if (changes->temperature == 0) { /* alone it also takes back the filters, which would have no effect */
    sampling->top_k = 0;
    sampling->top_p = 1;
  }
  if (!isnan(changes->temperature)) sampling->temperature = changes->temperature;
  if (!isnan(changes->top_p)) sampling->top_p = changes->top_p;
  if (!isnan(changes->repetition_penalty)) sampling->repetition_penalty = changes->repetition_penalty;
  if (changes->top_k >= 0) sampling->top_k = changes->top_k;
  if (changes->seed >= 0) sampling->seed = changes->seed;
  if (changes->no_repeat_ngram_size >= 0) result.no_repeat_ngram_size = changes->no_repeat_ngram_size;
  if (changes->min_new_tokens >= 0) result.min_new_tokens = changes->min_new_tokens;
  if (changes->max_new_tokens >= 0) result.max_new_tokens = changes->max_new_tokens;
  check_sampling(sampling, EXIT_USAGE);
  if (sampling->temperature != 0 && changes->beams < 0) result.beams.count = 1;
  change_beams(&result.beams, changes);
  if (result.beams.count > 1 && sampling->temperature != 0) {
    fail(EXIT_USAGE, "beam search takes the likeliest texts; ask for temperature 0, or for 1 beam");
  }
  return result;
}

int64_t most_new_tokens(const Settings *settings, int64_t prefix, int64_t otherwise) {
  if (settings->max_new_tokens >= 0) return settings->max_new_tokens;
  if (settings->max_length < 0) return otherwise;
  return settings->max_length > prefix ? settings->max_length - prefix : 1;
}

int64_t fewest_new_tokens(const Settings *settings, int64_t prefix) {
  if (settings->min_new_tokens >= 0) return settings->min_new_tokens;
  return settings->min_length > prefix ? settings->min_length - prefix : 0;
}
