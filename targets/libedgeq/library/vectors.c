#include "vectors.h"

#include <math.h>
#include <string.h>

#include "numerics.h"
#include "rows.h"

static const double SMALLEST_NORM = 1e-12;
static const double ROUNDING = 1e-3; /* embeddings that a graph normalizes have length 1 within this */

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

static double norm_of(const float *vector, size_t width) {
  double squares = 0;
  for (size_t k = 0; k < width; k++) squares += (double)vector[k] * vector[k];
  return sqrt(squares);
}

static void normalize_vector(float *vector, size_t width) {
  double norm = norm_of(vector, width);
  for (size_t k = 0; k < width; k++) vector[k] = (float)(vector[k] / (norm > SMALLEST_NORM ? norm : SMALLEST_NORM));
}

/* Vectors of a text's tokens [tokens, width] to one [width]. */
static void pool_vectors(const edgeq_info *info, const float *data, size_t tokens, size_t width, float *pooled) {
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
  }
  if (info->normalize) normalize_vector(pooled, width);
}

/* Where the vectors of rows go. */
typedef struct {
  const edgeq_info *info;
  size_t output, width;
  float *values;  /* [texts, width] */
  double *sums;   /* [texts, width]: of a split text's rows; NULL if no text is split */
  bool *is_short; /* whether a row of a split text has not length 1 */
  const Batch *batch;
} Vectors;

static void take_vector(void *context, const TextRow *row, const edgeq_tensor *outputs, size_t place) {
  Vectors *vectors = context;
  const edgeq_tensor *output = &outputs[vectors->output];
  const float *data = row_values(output, place);
  size_t width = vectors->width;
  float *to = vectors->values + row->text * width;
  if (strcmp(vectors->info->task, "classify") == 0) {
    memcpy(to, data, width * sizeof *to);
  } else {
    size_t rows = output->rank == 3 ? (size_t)output->shape[1] : 1, tokens = output->rank == 3 ? row->row.count : 1;
    pool_vectors(vectors->info, data, tokens < rows ? tokens : rows, width, to);
  }
  if (vectors->batch->texts[row->text].count == 1) return;
  double *sums = vectors->sums + row->text * width;
  for (size_t k = 0; k < width; k++) sums[k] += (double)to[k] * (double)row->row.count;
  if (fabs(norm_of(to, width) - 1) > ROUNDING) vectors->is_short[row->text] = true;
}

/* The average of a split text's rows, each counted by its tokens; embeddings of length 1 keep that length. */
static void average_rows(const Vectors *vectors, size_t text) {
  const Rows *rows = &vectors->batch->texts[text];
  float *to = vectors->values + text * vectors->width;
  double tokens = 0;
  for (size_t i = 0; i < rows->count; i++) tokens += (double)rows->rows[i].count;
  for (size_t k = 0; k < vectors->width; k++) to[k] = (float)(vectors->sums[text * vectors->width + k] / tokens);
  bool embeds = strcmp(vectors->info->task, "classify") != 0;
  if (embeds && !vectors->is_short[text]) normalize_vector(to, vectors->width);
}

void run_texts(edgeq_session *session, const edgeq_text *texts, size_t count, const edgeq_text_options *options,
               float *values, edgeq_reading *readings) {
  const edgeq_model *model = session->model;
  const Interface *main = &model->functions[EDGEQ_MAIN].interface;
  Memory *memory = &session->call;
  if (model->info.width == 0) fail(memory, EDGEQ_USAGE, "the model has no float32 output of vectors; run it on tensors");
  TextReader reader = text_reader(memory, session, options, 0, false);
  Batch batch = read_batch(memory, &reader, texts, count, readings);
  Vectors vectors = {.info = &model->info, .output = vectors_output(main), .values = values, .batch = &batch};
  vectors.width = (size_t)model->info.width;
  if (batch.row_count > count) {
    vectors.sums = allocate(memory, count * vectors.width, sizeof *vectors.sums);
    vectors.is_short = allocate(memory, count, sizeof *vectors.is_short);
  }
  run_batch(session, &batch, take_vector, &vectors);
  for (size_t i = 0; i < count; i++) {
    if (batch.texts[i].count > 1) average_rows(&vectors, i);
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
