#include "generation_table.h"

#include <dlpack/dlpack.h>
#include <string.h>

#include "fail.h"

static bool begins_with(const char *text, const char *beginning) {
  return strncmp(text, beginning, strlen(beginning)) == 0;
}

/* [batch, heads, slots, ...]: slots are tokens, or vectors of tokens, of the sequence or of its source. */
static void check_cache(const Spec *spec, bool of_source, const char *file) {
  const char *slots = of_source ? "source_context" : "context";
  const char *blocks = of_source ? "source_context_blocks" : "context_blocks";
  bool fits = spec->type->code == kDLFloat && spec->dimensions > 2;
  for (int i = 0; fits && i < spec->dimensions; i++) {
    const char *name = spec->size_names[i];
    if (i == 0) fits = name != NULL && strcmp(name, "batch") == 0;
    if (i == 2) fits = name != NULL && (strcmp(name, slots) == 0 || strcmp(name, blocks) == 0);
    if (i != 0 && i != 2) fits = name == NULL;
  }
  if (!fits) fail(EXIT_FAULT, "%s: cache '%s' must be floats [batch, heads, %s, ...]", file, spec->name, slots);
}

/* An int64 input with the sizes that are named; the second may be missing. */
static bool is_input(const Spec *spec, const char *name, const char *second) {
  bool fits = strcmp(spec->name, name) == 0 && spec->type->code == kDLInt && spec->type->bits == 64 &&
              spec->dimensions == (second != NULL ? 2 : 1) && spec->size_names[0] != NULL &&
              strcmp(spec->size_names[0], "batch") == 0;
  if (!fits || second == NULL) return fits;
  return spec->size_names[1] != NULL && strcmp(spec->size_names[1], second) == 0;
}

static bool in_range(const Spec *spec, int64_t least, int64_t most) {
  return spec->has_minimum && spec->has_maximum && spec->minimum == least && spec->maximum == most;
}

static void check_main(const Bundle *bundle, const char *file) {
  const Function *function = &bundle->functions[MAIN];
  const Spec *in = function->inputs, *out = function->outputs;
  bool sourced = reads_source(bundle);
  bool fits = function->input_count == (sourced ? TARGET_INPUTS : DECODER_INPUTS) &&
              is_input(&in[0], "input_ids", "sequence") && is_input(&in[1], "past_lengths", NULL) &&
              is_input(&in[2], "new_lengths", NULL) && (!sourced || is_input(&in[3], "source_lengths", NULL));
  if (!fits) {
    fail(EXIT_FAULT, "%s: the inputs of a decoder are input_ids, past_lengths, new_lengths%s", file,
         sourced ? ", source_lengths" : "");
  }
  if (function->output_count != 1 || strcmp(out->type->name, "float32") != 0 || out->dimensions != 2 ||
      out->size_names[0] == NULL || strcmp(out->size_names[0], "batch") != 0 || out->shape[1] < 1) {
    fail(EXIT_FAULT, "%s: the output of a decoder is one row of float32 logits for each sequence", file);
  }
  if (!in_range(in, 0, out->shape[1] - 1)) {
    fail(EXIT_FAULT, "%s: ids of a decoder must lie in 0..%lld", file, (long long)out->shape[1] - 1);
  }
  if (sourced && !in_range(&in[3], 1, bundle->generation.source_context)) {
    fail(EXIT_FAULT, "%s: 'source_lengths' must lie in 1..%lld", file, (long long)bundle->generation.source_context);
  }
  if (function->longest != bundle->generation.context) fail(EXIT_FAULT, "%s: 'max_length' must be the context", file);
}

static int64_t read_token(const JsonValue *table, const char *key, int64_t vocabulary, const char *file) {
  const JsonValue *token = json_find(table, key);
  if (token != NULL && token->kind == JSON_NULL) return -1;
  return json_integer(table, key, 0, vocabulary - 1, file);
}

static void read_source(Bundle *bundle, const JsonValue *table, int64_t vocabulary, const char *file) {
  Generation *generation = &bundle->generation;
  Function *encode = &bundle->functions[ENCODE];
  generation->source_context = encode->longest = json_integer(table, "context", 1, LARGEST_SIZE, file);
  generation->start_id = json_integer(table, "start_id", 0, vocabulary - 1, file);
  generation->forced_first = read_token(table, "forced_first", vocabulary, file);
  generation->forced_last = read_token(table, "forced_last", vocabulary, file);
  encode->name = "encode";
  encode->inputs = read_specs(table, "inputs", &encode->input_count, file);
  encode->outputs = read_specs(table, "outputs", &encode->output_count, file);
  const Spec *in = encode->inputs;
  bool fits = encode->input_count == SOURCE_INPUTS && is_input(&in[0], "input_ids", "sequence") &&
              is_input(&in[1], "attention_mask", "sequence") && is_input(&in[2], "source_lengths", NULL);
  if (!fits) fail(EXIT_FAULT, "%s: the inputs of an encoder are input_ids, attention_mask, source_lengths", file);
  if (!in_range(&in[0], 0, vocabulary - 1) || !in_range(&in[1], 0, 1) ||
      !in_range(&in[2], 1, generation->source_context)) {
    fail(EXIT_FAULT, "%s: the inputs of an encoder must lie in the vocabulary, in 0..1 and in 1..%lld", file,
         (long long)generation->source_context);
  }
}

static void read_end_ids(Generation *generation, const JsonValue *table, int64_t vocabulary, const char *file) {
  const JsonValue *end_ids = json_member(table, "end_ids", JSON_ARRAY, file);
  generation->end_ids = allocate(end_ids->count, sizeof *generation->end_ids);
  for (const JsonValue *end = end_ids->children; end != NULL; end = end->next) {
    if (end->kind != JSON_INTEGER || end->integer < 0 || end->integer >= vocabulary) {
      fail(EXIT_FAULT, "%s: 'end_ids' must be token ids", file);
    }
    bool known = false;
    for (size_t i = 0; i < generation->end_count; i++) known = known || generation->end_ids[i] == end->integer;
    if (!known) generation->end_ids[generation->end_count++] = end->integer;
  }
}

static void read_state(Generation *generation, const JsonValue *table, const char *file) {
  generation->state = read_specs(table, "state", &generation->state_count, file);
  generation->of_source = allocate(generation->state_count, sizeof *generation->of_source);
  for (size_t i = 0; i < generation->state_count; i++) {
    const char *name = generation->state[i].name;
    bool of_source = begins_with(name, "source_keys.") || begins_with(name, "source_values.");
    generation->of_source[i] = of_source && generation->source_context > 0;
    check_cache(&generation->state[i], generation->of_source[i], file);
  }
}

void read_generation(Bundle *bundle, const JsonValue *root, const char *file) {
  Generation *generation = &bundle->generation;
  bool rewrites = strcmp(bundle->task, "seq2seq") == 0, generates = strcmp(bundle->task, "generate") == 0 || rewrites;
  if ((json_find(root, "generation") != NULL) != generates) {
    fail(EXIT_FAULT, "%s: the task '%s' and 'generation' do not belong together", file, bundle->task);
  }
  if (!generates) return;
  const JsonValue *table = json_member(root, "generation", JSON_OBJECT, file);
  if ((json_find(table, "source") != NULL) != rewrites) {
    fail(EXIT_FAULT, "%s: the task '%s' and the source of 'generation' do not belong together", file, bundle->task);
  }
  const Spec *logits = bundle->functions[MAIN].outputs;
  int64_t vocabulary = logits->dimensions == 2 && logits->shape[1] > 0 ? logits->shape[1] : 1;
  generation->forced_first = generation->forced_last = -1;
  generation->context = json_integer(table, "context", 1, LARGEST_SIZE, file);
  if (rewrites) read_source(bundle, json_member(table, "source", JSON_OBJECT, file), vocabulary, file);
  read_state(generation, table, file);
  check_main(bundle, file);
  read_end_ids(generation, table, vocabulary, file);
  generation->settings = read_settings(json_member(table, "settings", JSON_OBJECT, file), file);
  if (generation->settings.beams.count > 1 && (!rewrites || generation->settings.sampling.temperature != 0)) {
    fail(EXIT_FAULT, "%s: beam search is for encoder-decoders, and draws no tokens by chance", file);
  }
}
