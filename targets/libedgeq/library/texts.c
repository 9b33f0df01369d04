#include "texts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "numerics.h"
#include "tokenizer.h"
#include "utf8.h"

const char *text_name(Memory *memory, const edgeq_text *text, size_t index) {
  if (text->name != NULL) return text->name;
  char *name = allocate(memory, 32, 1);
  snprintf(name, 32, "text %zu", index + 1);
  return name;
}

static bool is_blank(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++) {
    if (text[i] == '\0' || strchr(" \t\r\n\v\f", text[i]) == NULL) return false;
  }
  return true;
}

static void check_text(const Memory *memory, const edgeq_text *text, const char *name) {
  for (size_t at = 0; at < text->size;) {
    size_t length = character_size(text->text + at, text->size - at);
    if (length == 0 || text->text[at] == '\0') {
      fail(memory, EDGEQ_USAGE, "%s is not UTF-8: it holds byte 0x%02x", name, (unsigned char)text->text[at]);
    }
    at += length;
  }
}

/* Most tokens of a text; 0 if nothing limits it. */
static int64_t longest_text(const edgeq_model *model) {
  int64_t own = model->texts.longest, longest = model->info.longest;
  return own > 0 && (longest == 0 || own < longest) ? own : longest;
}

/* Takes tokens away from a text that is too long, but none of those that stand around it. */
static void cut(const Memory *memory, const edgeq_model *model, Tokens *tokens, const char *name) {
  size_t longest = (size_t)longest_text(model), prefix = model->tokenizer.prefix_count;
  size_t around = prefix + model->tokenizer.suffix_count;
  if (longest == 0 || tokens->count <= longest) return;
  if (!model->texts.cuts) {
    fail(memory, EDGEQ_USAGE, "%s has %zu tokens, the model takes at most %zu; shorten or split it", name,
         tokens->count, longest);
  }
  if (longest < around) fail(memory, EDGEQ_USAGE, "%s does not fit into %zu tokens", name, longest);
  size_t away = tokens->count - longest, from = model->texts.cuts_left ? prefix : prefix + longest - around;
  memmove(tokens->ids + from, tokens->ids + from + away, (tokens->count - from - away) * sizeof *tokens->ids);
  tokens->count = longest;
}

Tokens text_tokens(Memory *memory, const edgeq_session *session, const edgeq_text *text, const char *name) {
  const edgeq_model *model = session->model;
  if (text->text == NULL) {
    if (text->id_count == 0) fail(memory, EDGEQ_USAGE, "%s is empty; give at least one token", name);
    int64_t *ids = allocate(memory, text->id_count, sizeof *ids);
    memcpy(ids, text->ids, text->id_count * sizeof *ids);
    return (Tokens){ids, text->id_count};
  }
  if (model->no_tokenizer != NULL) {
    fail(memory, EDGEQ_USAGE, "%s needs a tokenizer, but %s; give token ids", name, model->no_tokenizer);
  }
  Buffer ids = {.memory = memory};
  check_text(memory, text, name);
  if (is_blank(text->text, text->size)) fail(memory, EDGEQ_USAGE, "%s is empty; give at least one word", name);
  Buffer whole = {.memory = memory};
  if (model->texts.prompt_is_left_out) {
    fail(memory, EDGEQ_USAGE, "the bundle leaves its prompt out of embeddings, which only Python does; give tensors");
  }
  buffer_add(&whole, model->texts.prompt, strlen(model->texts.prompt));
  buffer_add(&whole, text->text, text->size);
  tokenizer_encode(&model->tokenizer, whole.data, whole.size, &ids);
  buffer_release(&whole);
  if (ids.size == 0) fail(memory, EDGEQ_USAGE, "%s has no tokens; give at least one word", name);
  Tokens tokens = {(int64_t *)(void *)ids.data, ids.size / sizeof(int64_t)};
  if (model->generation.context == 0) cut(memory, model, &tokens, name); /* prompts of generated texts have other limits */
  return tokens;
}

static void check_tokens(const Memory *memory, const Tokens *tokens, int64_t most, int64_t longest, const char *name) {
  for (size_t i = 0; i < tokens->count; i++) {
    if (tokens->ids[i] < 0 || tokens->ids[i] > most) {
      fail(memory, EDGEQ_USAGE, "%s holds %lld; ids lie in 0..%lld", name, (long long)tokens->ids[i], (long long)most);
    }
  }
  if (longest > 0 && tokens->count > (uint64_t)longest) {
    fail(memory, EDGEQ_USAGE, "%s has %zu tokens, the model takes at most %lld; shorten or split it", name,
         tokens->count, (long long)longest);
  }
}

static const Spec *find_input(const Interface *interface, const char *name) {
  for (size_t i = 0; i < interface->input_count; i++) {
    if (strcmp(interface->inputs[i].name, name) == 0) return &interface->inputs[i];
  }
  return NULL;
}

Tokens *checked_texts(Memory *memory, const edgeq_session *session, const edgeq_text *texts, size_t count) {
  const edgeq_model *model = session->model;
  const Function *reads = &model->functions[reads_source(model) ? EDGEQ_ENCODE : EDGEQ_MAIN];
  const Spec *ids = find_input(&reads->interface, "input_ids");
  Tokens *all = allocate(memory, count, sizeof *all);
  if (ids == NULL) fail(memory, EDGEQ_USAGE, "the model has no input 'input_ids'; give tensors");
  for (size_t i = 0; i < count; i++) {
    const char *name = text_name(memory, &texts[i], i);
    all[i] = text_tokens(memory, session, &texts[i], name);
    check_tokens(memory, &all[i], ids->has_maximum ? ids->maximum : INT64_MAX, reads->longest, name);
  }
  return all;
}

/* ---- models that give vectors ---- */

/* Inputs of a model whose inputs all follow from token ids. */
static void check_interface(const Memory *memory, const Interface *main) {
  for (size_t i = 0; i < main->input_count; i++) {
    const Spec *spec = &main->inputs[i];
    bool is_ids = strcmp(spec->name, "input_ids") == 0;
    if (spec->rank != 2 || spec->type != EDGEQ_INT64) {
      fail(memory, EDGEQ_USAGE, "input '%s' cannot be made from token ids; give tensors", spec->name);
    }
    if (!is_ids && !spec->has_default) {
      fail(memory, EDGEQ_USAGE, "input '%s' has no default, so token ids are not enough; give tensors", spec->name);
    }
  }
}

/* Runs texts as the rows of one call: what is not a token is masked out. */
static void run_together(edgeq_session *session, const Tokens *texts, size_t count, edgeq_tensor *outputs) {
  const Interface *main = &session->model->functions[EDGEQ_MAIN].interface;
  Memory *memory = &session->call;
  size_t width = 0;
  for (size_t row = 0; row < count; row++) width = texts[row].count > width ? texts[row].count : width;
  int64_t *ids = allocate(memory, count * width, sizeof *ids), *mask = allocate(memory, count * width, sizeof *mask);
  edgeq_tensor *inputs = allocate(memory, main->input_count, sizeof *inputs);
  for (size_t row = 0; row < count; row++) {
    memcpy(ids + row * width, texts[row].ids, texts[row].count * sizeof *ids);
    for (size_t at = 0; at < texts[row].count; at++) mask[row * width + at] = 1;
  }
  for (size_t i = 0; i < main->input_count; i++) {
    const char *name = main->inputs[i].name;
    inputs[i] = (edgeq_tensor){.type = EDGEQ_INT64, .rank = 2, .shape = {(int64_t)count, (int64_t)width}};
    if (strcmp(name, "input_ids") == 0) inputs[i].data = ids;
    if (strcmp(name, "attention_mask") == 0) inputs[i].data = mask;
  }
  run_function(session, EDGEQ_MAIN, inputs, outputs, "");
  release(memory, ids);
  release(memory, mask);
  release(memory, inputs);
}

size_t vectors_output(const Interface *main) {
  size_t first = main->output_count;
  for (size_t i = main->output_count; i-- > 0;) {
    const Spec *spec = &main->outputs[i];
    if (spec->type != EDGEQ_FLOAT32 || (spec->rank != 2 && spec->rank != 3)) continue;
    if (spec->rank == 2 && strcmp(spec->name, "sentence_embedding") == 0) return i;
    first = i;
  }
  return first;
}

static const edgeq_tensor *vectors_of(const edgeq_session *session, const edgeq_tensor *outputs) {
  const Interface *main = &session->model->functions[EDGEQ_MAIN].interface;
  size_t index = vectors_output(main);
  if (index < main->output_count) return &outputs[index];
  fail(&session->call, EDGEQ_USAGE, "the model has no float32 output of vectors; run it on tensors");
}

/* Vectors of a text's tokens [tokens, width] to one [width]. */
static void pool_vectors(const edgeq_info *info, const float *data, size_t tokens, size_t width, float *pooled) {
  double squares = 0;
  for (size_t k = 0; k < width; k++) {
    double sum = 0;
    float greatest = data[k];
    for (size_t t = 0; t < tokens; t++) {
      float value = data[t * width + k];
      sum += value;
      if (value > greatest) greatest = value;
    }
    pooled[k] = data[k];
    if (strcmp(info->pooling, "mean") == 0) pooled[k] = (float)(sum / (double)tokens);
    if (strcmp(info->pooling, "max") == 0) pooled[k] = greatest;
    squares += (double)pooled[k] * pooled[k];
  }
  double norm = sqrt(squares) > 1e-12 ? sqrt(squares) : 1e-12;
  for (size_t k = 0; info->normalize && k < width; k++) pooled[k] = (float)(pooled[k] / norm);
}

static void take_vectors(const edgeq_session *session, const Tokens *texts, size_t count, const edgeq_tensor *output,
                         float *values) {
  const edgeq_info *info = &session->model->info;
  size_t width = (size_t)info->width, rows = output->rank == 3 ? (size_t)output->shape[1] : 1;
  bool classifies = strcmp(info->task, "classify") == 0;
  for (size_t row = 0; row < count; row++) {
    const float *data = (const float *)output->data + row * rows * width;
    size_t tokens = output->rank == 3 ? texts[row].count : 1;
    if (classifies) {
      memcpy(values + row * width, data, width * sizeof *values);
    } else {
      pool_vectors(info, data, tokens < rows ? tokens : rows, width, values + row * width);
    }
  }
}

void run_texts(edgeq_session *session, const edgeq_text *texts, size_t count, size_t batch, float *values,
               size_t *tokens) {
  const edgeq_model *model = session->model;
  const Function *main = &model->functions[EDGEQ_MAIN];
  Memory *memory = &session->call;
  check_interface(memory, &main->interface);
  if (batch < 1) fail(memory, EDGEQ_USAGE, "a batch of 0 texts is not possible");
  if (model->info.width == 0) fail(memory, EDGEQ_USAGE, "the model has no float32 output of vectors; run it on tensors");
  Tokens *all = checked_texts(memory, session, texts, count);
  for (size_t i = 0; i < count && tokens != NULL; i++) tokens[i] = all[i].count;
  /* Without a mask nothing tells tokens from what fills up a row. */
  if (find_input(&main->interface, "attention_mask") == NULL) batch = 1;
  edgeq_tensor *outputs = allocate(memory, main->interface.output_count, sizeof *outputs);
  for (size_t first = 0; first < count; first += batch) {
    size_t together = count - first < batch ? count - first : batch;
    run_together(session, all + first, together, outputs);
    take_vectors(session, all + first, together, vectors_of(session, outputs), values + first * (size_t)model->info.width);
  }
}

static void softmax(const float *logits, size_t count, double *scores) {
  double total = 0;
  float greatest = logits[0];
  for (size_t k = 1; k < count; k++) greatest = logits[k] > greatest ? logits[k] : greatest;
  for (size_t k = 0; k < count; k++) total += scores[k] = exp_of_negative((double)logits[k] - (double)greatest);
  for (size_t k = 0; k < count; k++) scores[k] /= total;
}

void class_scores(Scores kind, const float *logits, size_t count, double *scores) {
  if (kind == SCORES_SOFTMAX) {
    softmax(logits, count, scores);
    return;
  }
  for (size_t k = 0; k < count; k++) {
    double x = (double)logits[k], small = exp_of_negative(x > 0 ? -x : x);
    scores[k] = kind == SCORES_AS_THEY_ARE ? x : x >= 0 ? 1 / (1 + small) : small / (1 + small);
  }
}
