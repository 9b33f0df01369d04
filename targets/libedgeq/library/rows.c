#include "rows.h"

#include <stdlib.h>
#include <string.h>

Batch read_batch(Memory *memory, const TextReader *reader, const edgeq_text *texts, size_t count, edgeq_reading *readings) {
  Batch batch = {.reader = *reader, .text_count = count, .texts = allocate(memory, count, sizeof *batch.texts)};
  for (size_t i = 0; i < count; i++) {
    const char *name = text_name(memory, reader, &texts[i], i);
    batch.texts[i] = read_checked(memory, reader, &texts[i], second_of(reader, i), name);
    batch.row_count += batch.texts[i].count;
    if (readings != NULL) readings[i] = reading_of(&batch.texts[i]);
  }
  batch.rows = allocate(memory, batch.row_count, sizeof *batch.rows);
  size_t at = 0;
  for (size_t i = 0; i < count; i++) {
    for (size_t k = 0; k < batch.texts[i].count; k++) batch.rows[at++] = (TextRow){batch.texts[i].rows[k], i, k};
  }
  return batch;
}

size_t output_named(const Interface *main, const char *name, int rank) {
  size_t first = main->output_count;
  for (size_t i = main->output_count; i-- > 0;) {
    const Spec *spec = &main->outputs[i];
    if (spec->type != EDGEQ_FLOAT32 || spec->rank != rank) continue;
    if (strcmp(spec->name, name) == 0) return i;
    first = i;
  }
  return first;
}

const float *row_values(const edgeq_tensor *output, size_t place) {
  size_t values = 1;
  for (int32_t at = 1; at < output->rank; at++) values *= (size_t)output->shape[at];
  return (const float *)output->data + place * values;
}

/* Inputs of a model whose inputs all follow from texts. */
static void check_interface(const Memory *memory, const Interface *main) {
  static const char *const made[] = {"input_ids", "attention_mask", "token_type_ids", "pooling_mask"};
  bool has_ids = false;
  for (size_t i = 0; i < main->input_count; i++) {
    const Spec *spec = &main->inputs[i];
    bool is_made = false;
    for (size_t k = 0; k < sizeof made / sizeof *made; k++) is_made |= strcmp(spec->name, made[k]) == 0;
    has_ids |= strcmp(spec->name, made[0]) == 0;
    if (spec->rank != 2 || spec->type != EDGEQ_INT64) {
      fail(memory, EDGEQ_USAGE, "input '%s' cannot be made from token ids; give tensors", spec->name);
    }
    if (!is_made && !spec->has_default) {
      fail(memory, EDGEQ_USAGE, "input '%s' has no default, so token ids are not enough; give tensors", spec->name);
    }
  }
  if (!has_ids) fail(memory, EDGEQ_USAGE, "the model has no input 'input_ids'; give tensors");
}

/* Values of an input for rows, filled up behind with tokens that no row sees; NULL for its default. */
static int64_t *input_values(Memory *memory, const char *name, const Batch *batch, const size_t *order, size_t count,
                             size_t width) {
  bool is_ids = strcmp(name, "input_ids") == 0, is_types = strcmp(name, "token_type_ids") == 0;
  bool is_pooling = strcmp(name, "pooling_mask") == 0;
  if (!is_ids && !is_types && !is_pooling && strcmp(name, "attention_mask") != 0) return NULL;
  int64_t *values = allocate(memory, count * width, sizeof *values);
  for (size_t row = 0; row < count; row++) {
    const TextRow *from = &batch->rows[order[row]];
    size_t tokens = from->row.count, masked = is_pooling && from->number == 0 ? batch->reader.prompt_tokens : 0;
    int64_t *to = values + row * width;
    if (is_ids || is_types) memcpy(to, is_ids ? from->row.ids : from->row.types, tokens * sizeof *to);
    for (size_t at = masked; !is_ids && !is_types && at < tokens; at++) to[at] = 1;
  }
  return values;
}

static void run_together(edgeq_session *session, const Batch *batch, const size_t *order, size_t count,
                         edgeq_tensor *outputs) {
  const Interface *main = &session->model->functions[EDGEQ_MAIN].interface;
  Memory *memory = &session->call;
  size_t width = 0;
  for (size_t row = 0; row < count; row++) {
    size_t tokens = batch->rows[order[row]].row.count;
    width = tokens > width ? tokens : width;
  }
  edgeq_tensor *inputs = allocate(memory, main->input_count, sizeof *inputs);
  for (size_t i = 0; i < main->input_count; i++) {
    inputs[i] = (edgeq_tensor){.type = EDGEQ_INT64, .rank = 2, .shape = {(int64_t)count, (int64_t)width}};
    inputs[i].data = input_values(memory, main->inputs[i].name, batch, order, count, width);
  }
  run_function(session, EDGEQ_MAIN, inputs, outputs, "");
  for (size_t i = 0; i < main->input_count; i++) release(memory, inputs[i].data);
  release(memory, inputs);
}

/* A row and its tokens, for sorting. */
typedef struct {
  size_t row, tokens;
} Length;

/* The longest first, of equal ones the first first. */
static int by_length(const void *left, const void *right) {
  const Length *a = left, *b = right;
  if (a->tokens != b->tokens) return a->tokens > b->tokens ? -1 : 1;
  return a->row < b->row ? -1 : 1;
}

/* The order in which rows run: as they are with a batch of fixed size, else those of about the same length together. */
static size_t *order_rows(Memory *memory, const Batch *batch) {
  size_t count = batch->row_count, *order = allocate(memory, count, sizeof *order);
  Length *lengths = allocate(memory, count, sizeof *lengths);
  for (size_t i = 0; i < count; i++) lengths[i] = (Length){i, batch->rows[i].row.count};
  if (batch->reader.options.batch == 0 && count > 1) qsort(lengths, count, sizeof *lengths, by_length);
  for (size_t i = 0; i < count; i++) order[i] = lengths[i].row;
  release(memory, lengths);
  return order;
}

/* How many rows run together, of which the first has this many tokens. */
static size_t rows_together(const edgeq_model *model, const Batch *batch, size_t tokens) {
  const Interface *main = &model->functions[EDGEQ_MAIN].interface;
  const edgeq_text_options *options = &batch->reader.options;
  bool has_mask = false;
  for (size_t i = 0; i < main->input_count; i++) has_mask |= strcmp(main->inputs[i].name, "attention_mask") == 0;
  if (!has_mask) return 1; /* nothing tells tokens from what fills up a row */
  if (options->batch > 0) return (size_t)options->batch;
  return (uint64_t)options->token_budget > tokens ? (size_t)options->token_budget / tokens : 1;
}

void run_batch(edgeq_session *session, const Batch *batch, RowUse use, void *context) {
  const edgeq_model *model = session->model;
  const Interface *main = &model->functions[EDGEQ_MAIN].interface;
  Memory *memory = &session->call;
  check_interface(memory, main);
  size_t *order = order_rows(memory, batch);
  edgeq_tensor *outputs = allocate(memory, main->output_count, sizeof *outputs);
  for (size_t first = 0; first < batch->row_count;) {
    size_t left = batch->row_count - first, count = rows_together(model, batch, batch->rows[order[first]].row.count);
    if (count > left) count = left;
    run_together(session, batch, order + first, count, outputs);
    for (size_t place = 0; place < count; place++) use(context, &batch->rows[order[first + place]], outputs, place);
    first += count;
  }
  release(memory, order);
  release(memory, outputs);
}
