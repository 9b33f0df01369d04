#include "generation_table.h"

#include <string.h>

#include "state.h"

enum { MOST_IDS = 1024 };

/* [batch, heads, slots, ...]: slots are tokens, or vectors of tokens, of the sequence or of its encoder input. */
static void check_cache(const Json *json, const Spec *spec, bool of_source) {
  const char *slots = of_source ? "source_context" : "context";
  const char *blocks = of_source ? "source_context_blocks" : "context_blocks";
  bool known = spec->type == EDGEQ_FLOAT32 || spec->type == EDGEQ_FLOAT16 || spec->type == EDGEQ_INT8;
  bool fits = known && spec->rank > 2;
  for (int i = 0; fits && i < spec->rank; i++) {
    const char *name = spec->dimensions[i];
    if (i == 0) fits = name != NULL && strcmp(name, "batch") == 0;
    if (i == 2) fits = name != NULL && (strcmp(name, slots) == 0 || strcmp(name, blocks) == 0);
    if (i != 0 && i != 2) fits = name == NULL;
  }
  json_check(json, fits, "cache '%s' must be floats or int8 [batch, heads, %s, ...]", spec->name, slots);
}

/* An int64 input with the sizes that are named; the second may be missing. */
static bool is_input(const Spec *spec, const char *name, const char *second) {
  bool fits = strcmp(spec->name, name) == 0 && spec->type == EDGEQ_INT64 && spec->rank == (second != NULL ? 2 : 1) &&
              spec->dimensions[0] != NULL && strcmp(spec->dimensions[0], "batch") == 0;
  if (!fits || second == NULL) return fits;
  return spec->dimensions[1] != NULL && strcmp(spec->dimensions[1], second) == 0;
}

static bool in_range(const Spec *spec, int64_t least, int64_t most) {
  return spec->has_minimum && spec->has_maximum && spec->minimum == least && spec->maximum == most;
}

static void check_main(const edgeq_model *model, const Json *json) {
  const Interface *main = &model->functions[EDGEQ_MAIN].interface;
  const Spec *in = main->inputs, *out = main->outputs;
  bool sourced = reads_source(model);
  bool fits = main->input_count == (sourced ? TARGET_INPUTS : DECODER_INPUTS) &&
              is_input(&in[0], "input_ids", "sequence") && is_input(&in[1], "past_lengths", NULL) &&
              is_input(&in[2], "new_lengths", NULL) && (!sourced || is_input(&in[3], "source_lengths", NULL));
  json_check(json, fits, "the inputs of a decoder are input_ids, past_lengths, new_lengths%s",
             sourced ? ", source_lengths" : "");
  fits = main->output_count == 1 && out->type == EDGEQ_FLOAT32 && out->rank == 2 && out->dimensions[0] != NULL &&
         strcmp(out->dimensions[0], "batch") == 0 && out->shape[1] >= 1;
  json_check(json, fits, "the output of a decoder is one row of float32 logits for each sequence");
  json_check(json, in_range(in, 0, out->shape[1] - 1), "ids of a decoder must lie in 0..%lld",
             (long long)out->shape[1] - 1);
  json_check(json, !sourced || in_range(&in[3], 1, model->generation.source_context),
             "'source_lengths' must lie in 1..%lld", (long long)model->generation.source_context);
  json_check(json, model->functions[EDGEQ_MAIN].longest == model->generation.context,
             "'max_length' must be the context");
}

static void check_encode(const edgeq_model *model, const Json *json) {
  const Interface *encode = &model->functions[EDGEQ_ENCODE].interface;
  const Spec *in = encode->inputs;
  bool fits = encode->input_count == SOURCE_INPUTS && is_input(&in[0], "input_ids", "sequence") &&
              is_input(&in[1], "attention_mask", "sequence") && is_input(&in[2], "source_lengths", NULL);
  json_check(json, fits, "the inputs of an encoder are input_ids, attention_mask, source_lengths");
  fits = in_range(&in[0], 0, model->generation.vocabulary - 1) && in_range(&in[1], 0, 1) &&
         in_range(&in[2], 1, model->generation.source_context);
  json_check(json, fits, "the inputs of an encoder must lie in the vocabulary, in 0..1 and in 1..%lld",
             (long long)model->generation.source_context);
}

static int64_t read_token(const Json *json, const JsonValue *table, const char *key, int64_t vocabulary) {
  const JsonValue *token = json_find(table, key);
  if (token != NULL && token->kind == JSON_NULL) return -1;
  return json_integer(json, table, key, 0, vocabulary - 1);
}

static void read_source(edgeq_model *model, const Json *json, const JsonValue *table) {
  Generation *generation = &model->generation;
  generation->source_context = json_integer(json, table, "context", 1, LARGEST_SIZE);
  model->functions[EDGEQ_ENCODE].longest = generation->source_context;
  generation->start_id = json_integer(json, table, "start_id", 0, generation->vocabulary - 1);
  generation->forced_first = read_token(json, table, "forced_first", generation->vocabulary);
  generation->forced_last = read_token(json, table, "forced_last", generation->vocabulary);
  check_encode(model, json);
}

/* A list of token ids, each once. */
static int64_t *read_ids(edgeq_model *model, const Json *json, const JsonValue *table, const char *key, size_t *count) {
  const JsonValue *list = json_member(json, table, key, JSON_ARRAY);
  json_check(json, list->count <= MOST_IDS, "there are too many '%s'", key);
  int64_t *ids = allocate(&model->memory, list->count, sizeof *ids);
  for (const JsonValue *id = json_first(list); id != NULL; id = id->next) {
    bool fits = id->kind == JSON_INTEGER && id->integer >= 0 && id->integer < model->generation.vocabulary;
    json_check(json, fits, "'%s' must be token ids", key);
    bool known = false;
    for (size_t i = 0; i < *count; i++) known = known || ids[i] == id->integer;
    if (!known) ids[(*count)++] = id->integer;
  }
  return ids;
}

/* Those of the encoder input are what `encode` fills. */
static void check_state(edgeq_model *model, const Json *json) {
  const Function *main = &model->functions[EDGEQ_MAIN], *encode = &model->functions[EDGEQ_ENCODE];
  Generation *generation = &model->generation;
  generation->of_source = allocate(&model->memory, main->interface.state_count, sizeof *generation->of_source);
  for (size_t i = 0; i < encode->interface.state_count; i++) generation->of_source[encode->state_at[i]] = true;
  json_check(json, main->interface.state_count > 0, "a decoder keeps no caches");
  for (size_t i = 0; i < main->interface.state_count; i++) {
    check_cache(json, &main->interface.state[i], generation->of_source[i]);
    state_tensor(json->memory, model, i, 1, EDGEQ_DAMAGED);
  }
}

void read_generation(edgeq_model *model, const Json *json) {
  Generation *generation = &model->generation;
  const Function *main = &model->functions[EDGEQ_MAIN];
  const char *task = model->info.task;
  bool rewrites = strcmp(task, "seq2seq") == 0, generates = strcmp(task, "generate") == 0 || rewrites;
  const JsonValue *table = json_find(json->root, "generation");
  bool has_table = table != NULL && table->kind != JSON_NULL;
  json_check(json, has_table == generates, "the task '%s' and 'generation' do not belong together", task);
  json_check(json, rewrites == (model->functions[EDGEQ_ENCODE].plan != NULL),
             "the task '%s' and 'encode' do not belong together", task);
  json_check(json, generates || main->interface.state_count == 0, "only models that generate text keep caches");
  if (!generates) return;
  const JsonValue *source = json_find(table, "source");
  bool has_source = source != NULL && source->kind != JSON_NULL;
  json_check(json, has_source == rewrites, "the task '%s' and 'source' of 'generation' do not belong together", task);
  const Spec *logits = main->interface.output_count > 0 ? main->interface.outputs : NULL;
  json_check(json, logits != NULL && logits->rank == 2 && logits->shape[1] > 0, "a decoder gives no logits");
  generation->vocabulary = logits->shape[1];
  generation->forced_first = generation->forced_last = -1;
  generation->context = json_integer(json, table, "context", 1, LARGEST_SIZE);
  if (rewrites) read_source(model, json, json_member(json, table, "source", JSON_OBJECT));
  check_state(model, json);
  check_main(model, json);
  generation->end_ids = read_ids(model, json, table, "end_ids", &generation->end_count);
  const JsonValue *settings = json_member(json, table, "settings", JSON_OBJECT);
  generation->settings = read_settings(json, settings);
  if (json_find(settings, "banned_ids") != NULL) { /* bundles of older releases have none */
    generation->banned_ids = read_ids(model, json, settings, "banned_ids", &generation->banned_count);
  }
  json_check(json, generation->settings.beams.count == 1 || (rewrites && generation->settings.sampling.temperature == 0),
             "beam search is for encoder-decoders, and does no sampling");
}
