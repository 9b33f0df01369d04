#include "settings.h"

#include <math.h>
#include <string.h>

enum { LARGEST_COUNT = INT32_MAX };
static const double LARGEST_PENALTY = 100;

static double read_number(const Json *json, const JsonValue *table, const char *key) {
  const JsonValue *value = json_find(table, key);
  bool fits = value != NULL && (value->kind == JSON_INTEGER || value->kind == JSON_NUMBER);
  json_check(json, fits, "'%s' must be a number", key);
  return json_number(value);
}

static int64_t read_count(const Json *json, const JsonValue *table, const char *key, int64_t least) {
  const JsonValue *value = json_find(table, key);
  if (value != NULL && value->kind == JSON_NULL) return -1;
  return json_integer(json, table, key, least, LARGEST_COUNT);
}

static void check_beams(const Memory *memory, const Beams *beams, edgeq_status status) {
  if (beams->count < 1 || beams->count > MOST_BEAMS) {
    fail(memory, status, "the number of beams must be an integer in 1..%d", MOST_BEAMS);
  }
  if (!(fabs(beams->length_penalty) <= LARGEST_PENALTY)) {
    fail(memory, status, "length_penalty must be a number in -100..100");
  }
}

static Beams read_beams(const Json *json, const JsonValue *table) {
  Beams beams = {json_integer(json, table, "count", 1, MOST_BEAMS), read_number(json, table, "length_penalty"),
                 EDGEQ_NOT_EARLY};
  const JsonValue *early = json_find(table, "early_stopping");
  bool never = early != NULL && early->kind == JSON_TEXT && strcmp(early->text, "never") == 0;
  json_check(json, never || (early != NULL && early->kind == JSON_BOOL),
             "'early_stopping' must be true, false or \"never\"");
  beams.early_stopping = never ? EDGEQ_NEVER_EARLY : early->boolean ? EDGEQ_EARLY : EDGEQ_NOT_EARLY;
  check_beams(json->memory, &beams, EDGEQ_DAMAGED);
  return beams;
}

/* Bundles of older releases have none of this. */
static bool read_renormalizing(const Json *json, const JsonValue *table) {
  const JsonValue *value = json_find(table, "renormalize_logits");
  json_check(json, value == NULL || value->kind == JSON_BOOL, "'renormalize_logits' must be true or false");
  return value != NULL && value->boolean;
}

static void read_filters(const Json *json, const JsonValue *table, Settings *settings) {
  settings->filter_top_k = 0;
  settings->filter_top_p = 1;
  if (json_find(table, "filters") == NULL) return;
  const JsonValue *filters = json_member(json, table, "filters", JSON_OBJECT);
  const Sampling drawn = {.temperature = 1,
                          .top_k = json_integer(json, filters, "top_k", 0, UINT32_MAX),
                          .top_p = read_number(json, filters, "top_p"),
                          .repetition_penalty = 1};
  check_sampling(json->memory, &drawn, EDGEQ_DAMAGED);
  settings->filter_top_k = drawn.top_k;
  settings->filter_top_p = drawn.top_p;
}

Settings read_settings(const Json *json, const JsonValue *table) {
  const JsonValue *sampling = json_member(json, table, "sampling", JSON_OBJECT);
  Settings settings = {
      .sampling = {.temperature = read_number(json, sampling, "temperature"),
                   .top_k = json_integer(json, sampling, "top_k", 0, UINT32_MAX),
                   .top_p = read_number(json, sampling, "top_p"),
                   .repetition_penalty = read_number(json, sampling, "repetition_penalty"),
                   .seed = json_integer(json, sampling, "seed", 0, INT64_MAX)},
      .beams = read_beams(json, json_member(json, table, "beams", JSON_OBJECT)),
      .no_repeat_ngram_size = json_integer(json, table, "no_repeat_ngram_size", 0, LARGEST_COUNT),
      .min_length = json_integer(json, table, "min_length", 0, LARGEST_COUNT),
      .max_length = read_count(json, table, "max_length", 1),
      .min_new_tokens = read_count(json, table, "min_new_tokens", 0),
      .max_new_tokens = read_count(json, table, "max_new_tokens", 1),
      .renormalizes = read_renormalizing(json, table),
  };
  check_sampling(json->memory, &settings.sampling, EDGEQ_DAMAGED);
  read_filters(json, table, &settings);
  return settings;
}

static void change_beams(const Memory *memory, Beams *beams, const edgeq_generation *changes) {
  bool early = changes->early_stopping >= 0;
  if (changes->beams >= 0) beams->count = changes->beams;
  if (!isnan(changes->length_penalty)) beams->length_penalty = changes->length_penalty;
  if (early) beams->early_stopping = changes->early_stopping;
  if (changes->early_stopping > EDGEQ_NEVER_EARLY) {
    fail(memory, EDGEQ_USAGE, "early_stopping must be one of 0, 1 and 2, found %d", (int)changes->early_stopping);
  }
  check_beams(memory, beams, EDGEQ_USAGE);
  if (beams->count == 1 && (early || !isnan(changes->length_penalty))) {
    fail(memory, EDGEQ_USAGE, "length_penalty and early_stopping belong to beam search; ask for more than 1 beam");
  }
}

static void check_counts(const Memory *memory, const edgeq_generation *changes) {
  const struct {
    const char *name;
    int64_t value, least, most;
  } counts[] = {{"top_k", changes->top_k, 0, UINT32_MAX},
                {"no_repeat_ngram_size", changes->no_repeat_ngram_size, 0, LARGEST_COUNT},
                {"min_new_tokens", changes->min_new_tokens, 0, LARGEST_COUNT},
                {"max_new_tokens", changes->max_new_tokens, 1, LARGEST_COUNT}};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    bool fits = counts[i].value == -1 || (counts[i].value >= counts[i].least && counts[i].value <= counts[i].most);
    if (fits) continue;
    fail(memory, EDGEQ_USAGE, "%s must be an integer in %lld..%lld, found %lld", counts[i].name,
         (long long)counts[i].least, (long long)counts[i].most, (long long)counts[i].value);
  }
}

Settings changed_settings(const Memory *memory, const Settings *settings, const edgeq_generation *changes) {
  Settings result = *settings;
  Sampling *sampling = &result.sampling;
  check_counts(memory, changes);
  if (changes->temperature == 0) { /* alone it also takes back the filters, which would have no effect */
    sampling->top_k = 0;
    sampling->top_p = 1;
  }
  if (changes->temperature > 0 && sampling->temperature == 0) {
    sampling->top_k = settings->filter_top_k;
    sampling->top_p = settings->filter_top_p;
  }
  if (!isnan(changes->temperature)) sampling->temperature = changes->temperature;
  if (!isnan(changes->top_p)) sampling->top_p = changes->top_p;
  if (!isnan(changes->repetition_penalty)) sampling->repetition_penalty = changes->repetition_penalty;
  if (changes->top_k >= 0) sampling->top_k = changes->top_k;
  if (changes->seed >= 0) sampling->seed = changes->seed;
  if (changes->no_repeat_ngram_size >= 0) result.no_repeat_ngram_size = changes->no_repeat_ngram_size;
  if (changes->min_new_tokens >= 0) result.min_new_tokens = changes->min_new_tokens;
  if (changes->max_new_tokens >= 0) result.max_new_tokens = changes->max_new_tokens;
  check_sampling(memory, sampling, EDGEQ_USAGE);
  if (sampling->temperature != 0 && changes->beams < 0) result.beams.count = 1;
  change_beams(memory, &result.beams, changes);
  if (result.beams.count > 1 && sampling->temperature != 0) {
    fail(memory, EDGEQ_USAGE, "beam search takes the most likely texts; ask for temperature 0, or for 1 beam");
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
