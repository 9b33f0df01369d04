/* The functions of edgeq.h that read texts, but for edgeq_text_defaults: reading.c has it. */
#include <string.h>

#include "answers.h"
#include "api.h"
#include "fillings.h"
#include "options.h"
#include "ranking.h"
#include "reading.h"
#include "tags.h"
#include "tokenizer.h"
#include "vectors.h"

static void check_task(const edgeq_session *session, const char *task) {
  const char *own = session->model->info.task;
  if (strcmp(own, task) != 0) fail(&session->call, EDGEQ_USAGE, "the bundle is for '%s', not for '%s'", own, task);
}

typedef struct {
  edgeq_session *session;
  edgeq_text text;
  const edgeq_text_options *options;
  const int64_t **ids;
  size_t *count;
  edgeq_encoding *encoding;
} TokenizeCall;

static void tokenize_body(void *argument) {
  TokenizeCall *call = argument;
  Memory *memory = &call->session->call;
  if (call->text.text == NULL) fail(memory, EDGEQ_USAGE, "there is no text to tokenize");
  TextReader reader = text_reader(memory, call->session, NULL, 0, false);
  Rows rows = read_text(memory, &reader, &call->text, NULL, text_name(memory, &reader, &call->text, 0));
  *call->ids = rows.rows[0].ids;
  *call->count = rows.rows[0].count;
}

edgeq_status edgeq_tokenize(edgeq_session *session, const edgeq_text *text, const int64_t **ids, size_t *count) {
  TokenizeCall call = {.session = session, .text = *text, .ids = ids, .count = count};
  return run_call(session, tokenize_body, &call);
}

static void encode_body(void *argument) {
  TokenizeCall *call = argument;
  Memory *memory = &call->session->call;
  TextReader reader = text_reader(memory, call->session, call->options, 0, true);
  const char *name = text_name(memory, &reader, &call->text, 0);
  Rows rows = read_text(memory, &reader, &call->text, second_of(&reader, 0), name);
  edgeq_row *given = allocate(memory, rows.count, sizeof *given);
  for (size_t i = 0; i < rows.count; i++) given[i] = (edgeq_row){rows.rows[i].tokens, rows.rows[i].count};
  *call->encoding = (edgeq_encoding){given, rows.count, reading_of(&rows)};
}

edgeq_status edgeq_encode(edgeq_session *session, const edgeq_text *text, const edgeq_text_options *options,
                          edgeq_encoding *encoding) {
  TokenizeCall call = {.session = session, .text = *text, .options = options, .encoding = encoding};
  return run_call(session, encode_body, &call);
}

typedef struct {
  edgeq_session *session;
  const int64_t *ids;
  size_t count;
  const char **text;
  size_t *size;
} DetokenizeCall;

static void detokenize_body(void *argument) {
  DetokenizeCall *call = argument;
  const edgeq_model *model = call->session->model;
  Memory *memory = &call->session->call;
  if (model->no_tokenizer != NULL) fail(memory, EDGEQ_USAGE, "tokens have no text here: %s", model->no_tokenizer);
  TextOutput output = {.table = &model->tokenizer, .held = {.memory = memory}};
  Buffer text = {.memory = memory};
  for (size_t i = 0; i < call->count; i++) text_output_add(&output, call->ids[i], &text);
  text_output_finish(&output, &text);
  *call->size = text.size;
  buffer_add(&text, "", 1);
  *call->text = text.data;
}

edgeq_status edgeq_detokenize(edgeq_session *session, const int64_t *ids, size_t count, const char **text,
                              size_t *size) {
  DetokenizeCall call = {session, ids, count, text, size};
  return run_call(session, detokenize_body, &call);
}

typedef struct {
  edgeq_session *session;
  const edgeq_text *texts;
  size_t count;
  const edgeq_text_options *options;
  float *values;
  double *scores;
  size_t *tokens;
  edgeq_reading *readings;
  const char *task;
} TextsCall;

static void texts_body(void *argument) {
  TextsCall *call = argument;
  edgeq_session *session = call->session;
  check_task(session, call->task);
  edgeq_reading *readings = call->readings;
  if (call->tokens != NULL) readings = allocate(&session->call, call->count, sizeof *readings);
  run_texts(session, call->texts, call->count, call->options, call->values, readings);
  size_t width = (size_t)session->model->info.width;
  for (size_t i = 0; i < call->count; i++) {
    if (call->tokens != NULL) call->tokens[i] = readings[i].tokens;
    if (call->scores == NULL) continue;
    class_scores(session->model->texts.scores, call->values + i * width, width, call->scores + i * width);
  }
}

static void check_body(void *argument) {
  TextsCall *call = argument;
  checked_texts(&call->session->call, call->session, call->texts, call->count);
}

edgeq_status edgeq_check_texts(edgeq_session *session, const edgeq_text *texts, size_t count) {
  TextsCall call = {.session = session, .texts = texts, .count = count};
  return run_call(session, check_body, &call);
}

edgeq_status edgeq_embed_texts(edgeq_session *session, const edgeq_text *texts, size_t count,
                               const edgeq_text_options *options, float *values, edgeq_reading *readings) {
  TextsCall call = {.session = session, .texts = texts, .count = count, .options = options, .values = values,
                    .readings = readings, .task = "embed"};
  return run_call(session, texts_body, &call);
}

edgeq_status edgeq_classify_texts(edgeq_session *session, const edgeq_text *texts, size_t count,
                                  const edgeq_text_options *options, float *logits, double *scores,
                                  edgeq_reading *readings) {
  TextsCall call = {.session = session, .texts = texts, .count = count, .options = options, .values = logits,
                    .scores = scores, .readings = readings, .task = "classify"};
  return run_call(session, texts_body, &call);
}

/* Options that let `batch` texts run together; a batch of none is refused when the options are read. */
static edgeq_text_options in_batches(size_t batch) {
  edgeq_text_options options;
  edgeq_text_defaults(&options);
  options.batch = batch > 0 && batch < INT32_MAX ? (int64_t)batch : -1;
  return options;
}

edgeq_status edgeq_embed(edgeq_session *session, const edgeq_text *texts, size_t count, size_t batch, float *values,
                         size_t *tokens) {
  const edgeq_text_options options = in_batches(batch);
  TextsCall call = {.session = session, .texts = texts, .count = count, .options = &options, .values = values,
                    .tokens = tokens, .task = "embed"};
  return run_call(session, texts_body, &call);
}

edgeq_status edgeq_classify(edgeq_session *session, const edgeq_text *texts, size_t count, size_t batch, float *logits,
                            double *scores, size_t *tokens) {
  const edgeq_text_options options = in_batches(batch);
  TextsCall call = {.session = session, .texts = texts, .count = count, .options = &options, .values = logits,
                    .scores = scores, .tokens = tokens, .task = "classify"};
  return run_call(session, texts_body, &call);
}

/* ---- tags, answers, fillings, ranks ---- */

void edgeq_tag_defaults(edgeq_tag_options *options) {
  static const char *const ignored[] = {"O"};
  *options = (edgeq_tag_options){
      .size = sizeof *options, .ignored = ignored, .ignored_count = 1, .aggregation = EDGEQ_TAG_SIMPLE};
}

void edgeq_answer_defaults(edgeq_answer_options *options) {
  *options = (edgeq_answer_options){.size = sizeof *options, .top_k = 1, .longest = 15};
}

void edgeq_fill_defaults(edgeq_fill_options *options) {
  *options = (edgeq_fill_options){.size = sizeof *options, .top_k = 5};
}

typedef struct {
  edgeq_session *session;
  const edgeq_text *texts, *query;
  size_t count;
  const edgeq_text_options *options;
  const void *own; /* options of the task */
  void *found;
  edgeq_reading *readings;
} TaskCall;

static void tag_body(void *argument) {
  TaskCall *call = argument;
  edgeq_tag_options own;
  check_task(call->session, "tag");
  edgeq_tag_defaults(&own);
  take_options(&own, sizeof own, call->own);
  tag_texts(call->session, call->texts, call->count, call->options, &own, call->found, call->readings);
}

edgeq_status edgeq_tag(edgeq_session *session, const edgeq_text *texts, size_t count, const edgeq_text_options *options,
                       const edgeq_tag_options *tagging, edgeq_entities *found, edgeq_reading *readings) {
  TaskCall call = {session, texts, NULL, count, options, tagging, found, readings};
  return run_call(session, tag_body, &call);
}

static void answer_body(void *argument) {
  TaskCall *call = argument;
  edgeq_answer_options own;
  check_task(call->session, "answer");
  edgeq_answer_defaults(&own);
  take_options(&own, sizeof own, call->own);
  answer_texts(call->session, call->texts, call->count, call->options, &own, call->found, call->readings);
}

edgeq_status edgeq_find_answers(edgeq_session *session, const edgeq_text *texts, size_t count,
                                const edgeq_text_options *options, const edgeq_answer_options *answering,
                                edgeq_answers *found, edgeq_reading *readings) {
  TaskCall call = {session, texts, NULL, count, options, answering, found, readings};
  return run_call(session, answer_body, &call);
}

static void fill_body(void *argument) {
  TaskCall *call = argument;
  edgeq_fill_options own;
  check_task(call->session, "fill");
  edgeq_fill_defaults(&own);
  take_options(&own, sizeof own, call->own);
  fill_texts(call->session, call->texts, call->count, call->options, &own, call->found, call->readings);
}

edgeq_status edgeq_fill(edgeq_session *session, const edgeq_text *texts, size_t count, const edgeq_text_options *options,
                        const edgeq_fill_options *filling, edgeq_fillings *found, edgeq_reading *readings) {
  TaskCall call = {session, texts, NULL, count, options, filling, found, readings};
  return run_call(session, fill_body, &call);
}

static void rank_body(void *argument) {
  TaskCall *call = argument;
  check_task(call->session, "classify");
  rank_documents(call->session, call->query, call->texts, call->count, call->options, call->found, call->readings);
}

edgeq_status edgeq_rank(edgeq_session *session, const edgeq_text *query, const edgeq_text *documents, size_t count,
                        const edgeq_text_options *options, edgeq_ranked *ranked, edgeq_reading *readings) {
  TaskCall call = {session, documents, query, count, options, NULL, ranked, readings};
  return run_call(session, rank_body, &call);
}
