#include "fillings.h"

#include <string.h>

#include "numerics.h"
#include "token_texts.h"
#include "tokenizer.h"
#include "vectors.h"

typedef struct {
  Memory *memory;
  const edgeq_model *model;
  const Batch *batch;
  size_t output, vocabulary;
  int64_t *targets; /* tokens to choose from; NULL for all */
  size_t target_count, top_k;
  edgeq_fillings *found;
} Filler;

static size_t count_masks(const TokenizerTable *table, const Row *row) {
  size_t masks = 0;
  for (size_t i = 0; i < row->count; i++) masks += row->ids[i] == table->roles->mask;
  return masks;
}

/* A copy of a text, with an end mark besides. */
static const char *kept_text(Memory *memory, Buffer *text, size_t *size) {
  *size = text->size;
  char *copy = allocate(memory, text->size + 1, 1);
  if (text->size > 0) memcpy(copy, text->data, text->size);
  buffer_release(text);
  return copy;
}

/* The row with a token at place `at`, as text. Special tokens are left out, but other masks not. */
static void add_sequence(const Filler *filler, const Row *row, size_t at, bool is_only_mask, edgeq_filling *filling) {
  const TokenizerTable *table = &filler->model->tokenizer;
  int64_t *ids = allocate(filler->memory, row->count, sizeof *ids);
  size_t count = 0;
  for (size_t i = 0; i < row->count; i++) {
    int64_t id = i == at ? filling->token : row->ids[i];
    if (table->roles->padding == NO_TOKEN || id != table->roles->padding) ids[count++] = id;
  }
  Buffer text = {.memory = filler->memory};
  join_tokens(table, ids, count, is_only_mask, &text);
  filling->sequence = kept_text(filler->memory, &text, &filling->sequence_size);
  release(filler->memory, ids);
}

static void fill_mask(const Filler *filler, const Row *row, size_t at, const float *logits, bool is_only_mask,
                      edgeq_filling *fillings) {
  Memory *memory = filler->memory;
  size_t count = filler->targets != NULL ? filler->target_count : filler->vocabulary;
  double *scores = allocate(memory, filler->vocabulary, sizeof *scores);
  double *chosen = filler->targets != NULL ? allocate(memory, count, sizeof *chosen) : scores;
  size_t *best = allocate(memory, filler->top_k, sizeof *best);
  class_scores(SCORES_SOFTMAX, logits, filler->vocabulary, scores);
  for (size_t i = 0; filler->targets != NULL && i < count; i++) chosen[i] = scores[filler->targets[i]];
  largest(chosen, count, filler->top_k, best);
  for (size_t i = 0; i < filler->top_k; i++) {
    edgeq_filling *filling = &fillings[i];
    filling->token = filler->targets != NULL ? filler->targets[best[i]] : (int64_t)best[i];
    filling->score = chosen[best[i]];
    Buffer text = {.memory = memory};
    join_tokens(&filler->model->tokenizer, &filling->token, 1, false, &text);
    filling->text = kept_text(memory, &text, &filling->text_size);
    add_sequence(filler, row, at, is_only_mask, filling);
  }
  if (chosen != scores) release(memory, chosen);
  release(memory, scores);
  release(memory, best);
}

static void take_row(void *context, const TextRow *row, const edgeq_tensor *outputs, size_t place) {
  Filler *filler = context;
  const TokenizerTable *table = &filler->model->tokenizer;
  const float *logits = row_values(&outputs[filler->output], place);
  size_t masks = count_masks(table, &row->row), done = 0;
  edgeq_filling *items = allocate(filler->memory, masks * filler->top_k, sizeof *items);
  for (size_t i = 0; i < row->row.count; i++) {
    if (row->row.ids[i] != table->roles->mask) continue;
    fill_mask(filler, &row->row, i, logits + i * filler->vocabulary, masks == 1, items + done * filler->top_k);
    done++;
  }
  filler->found[row->text] = (edgeq_fillings){items, masks, filler->top_k};
}

/* The token of this name, or else the first one of the text. */
static int64_t target_token(const Filler *filler, const edgeq_text *target, size_t number) {
  Memory *memory = filler->memory;
  const TokenizerTable *table = &filler->model->tokenizer;
  if (target->text == NULL && target->id_count == 1) return target->ids[0];
  for (size_t i = 0; target->text != NULL && i < table->name_count; i++) {
    TokenText name = token_name(table, (int64_t)i);
    if (name.size == target->size && memcmp(name.text, target->text, name.size) == 0) return (int64_t)i;
  }
  TokenList tokens = token_list(memory, false);
  if (target->text != NULL) {
    check_text(memory, target, "a target");
    tokenizer_encode(table, target->text, target->size, &tokens);
  }
  if (token_count(&tokens) == 0) fail(memory, EDGEQ_USAGE, "target %zu has no token; leave it out", number + 1);
  int64_t token = *(const int64_t *)(const void *)tokens.ids.data;
  buffer_release(&tokens.ids);
  return token;
}

/* Reads the targets, each once. */
static void read_targets(Filler *filler, const edgeq_fill_options *options) {
  if (options->target_count == 0) return;
  filler->targets = allocate(filler->memory, options->target_count, sizeof *filler->targets);
  for (size_t i = 0; i < options->target_count; i++) {
    int64_t token = target_token(filler, &options->targets[i], i);
    bool is_new = true;
    if (token < 0 || (uint64_t)token >= filler->vocabulary) {
      fail(filler->memory, EDGEQ_USAGE, "target %zu is token %lld; the model has %zu", i + 1, (long long)token, filler->vocabulary);
    }
    for (size_t k = 0; k < filler->target_count; k++) is_new = is_new && filler->targets[k] != token;
    if (is_new) filler->targets[filler->target_count++] = token;
  }
  if (filler->target_count < filler->top_k) filler->top_k = filler->target_count;
}

static void check_masks(const Filler *filler, const edgeq_text *texts) {
  const TokenizerTable *table = &filler->model->tokenizer;
  TokenText mask = token_name(table, table->roles->mask);
  for (size_t i = 0; i < filler->batch->text_count; i++) {
    const Rows *rows = &filler->batch->texts[i];
    const char *name = text_name(filler->memory, &filler->batch->reader, &texts[i], i);
    if (rows->count > 1) fail(filler->memory, EDGEQ_USAGE, "%s is too long to be filled in; shorten or cut it", name);
    if (count_masks(table, &rows->rows[0]) > 0) continue;
    fail(filler->memory, EDGEQ_USAGE, "%s has no '%.*s' where a token is to be filled in", name, (int)mask.size, mask.text);
  }
}

void fill_texts(edgeq_session *session, const edgeq_text *texts, size_t count, const edgeq_text_options *options,
                const edgeq_fill_options *filling, edgeq_fillings *found, edgeq_reading *readings) {
  const edgeq_model *model = session->model;
  Memory *memory = &session->call;
  const Interface *main = &model->functions[EDGEQ_MAIN].interface;
  Filler filler = {.memory = memory, .model = model, .found = found, .top_k = (size_t)filling->top_k};
  filler.output = output_named(main, "logits", 3);
  filler.vocabulary = (size_t)model->info.width;
  if (filler.output == main->output_count || filler.vocabulary == 0) {
    fail(memory, EDGEQ_USAGE, "the model has no float32 output of a number for each token; run it on tensors");
  }
  if (filling->top_k < 1 || (uint64_t)filling->top_k > filler.vocabulary) {
    fail(memory, EDGEQ_USAGE, "the model has %zu tokens to fill in, found %lld", filler.vocabulary, (long long)filling->top_k);
  }
  if (model->no_tokenizer == NULL) {
    check_names_known(memory, &model->tokenizer);
    if (model->tokenizer.roles->mask == NO_TOKEN) fail(memory, EDGEQ_USAGE, "the bundle's tokenizer names no mask token");
    read_targets(&filler, filling);
  }
  TextReader reader = place_reader(memory, session, options, 0);
  Batch batch = read_batch(memory, &reader, texts, count, readings);
  filler.batch = &batch;
  check_masks(&filler, texts);
  run_batch(session, &batch, take_row, &filler);
}
