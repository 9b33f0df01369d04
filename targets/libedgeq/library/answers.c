#include "answers.h"

#include <stdlib.h>
#include <string.h>

#include "characters.h"
#include "options.h"
#include "utf8.h"
#include "vectors.h"

enum { LONGEST_ROW = 384, COMMON_TOKENS = 128 }; /* as in transformers */

/* Where an answer may be in a row, with the product of the probabilities of its ends. */
typedef struct {
  size_t first, last;
  double score;
} Candidate;

typedef struct {
  Memory *memory;
  const edgeq_model *model;
  const edgeq_answer_options *options;
  const Batch *batch;
  size_t start, end;  /* numbers of the outputs */
  int32_t context;    /* number of the context in a row: the second text, for some tokenizers the first */
  float **logits;     /* for every row those of starts, then those of ends */
} Answerer;

static void take_row(void *context, const TextRow *row, const edgeq_tensor *outputs, size_t place) {
  Answerer *answerer = context;
  size_t count = row->row.count;
  float *logits = allocate(answerer->memory, 2 * count, sizeof *logits);
  memcpy(logits, row_values(&outputs[answerer->start], place), count * sizeof *logits);
  memcpy(logits + count, row_values(&outputs[answerer->end], place), count * sizeof *logits);
  answerer->logits[row - answerer->batch->rows] = logits;
}

/* Probabilities of the tokens that an answer may have, and of the one that stands for none; 0 for others. */
static double *probabilities(Memory *memory, const float *logits, const bool *counts, size_t count) {
  float *kept = allocate(memory, count, sizeof *kept);
  double *scores = allocate(memory, count, sizeof *scores);
  for (size_t i = 0; i < count; i++) kept[i] = counts[i] ? logits[i] : -10000.0f;
  class_scores(SCORES_SOFTMAX, kept, count, scores);
  release(memory, kept);
  return scores;
}

/* Puts a candidate among the `most` best ones, behind equal ones; returns how many there are. */
static size_t keep_best(Candidate *best, size_t count, size_t most, Candidate candidate) {
  size_t at = count < most ? count : most - 1;
  if (count == most && candidate.score <= best[at].score) return count;
  for (; at > 0 && best[at - 1].score < candidate.score; at--) best[at] = best[at - 1];
  best[at] = candidate;
  return count < most ? count + 1 : most;
}

/* The place in the context of the word that a token belongs to, or of the token itself. */
static edgeq_token word_place(const Answerer *answerer, const Row *row, size_t at) {
  edgeq_token place = row->tokens[at];
  if (answerer->options->splits_words || place.sequence != answerer->context) return place;
  size_t first = at, last = at;
  for (size_t i = 0; i < row->count; i++) {
    const edgeq_token *token = &row->tokens[i];
    if (token->sequence != place.sequence || token->word != place.word) continue;
    first = i < first ? i : first;
    last = i > last ? i : last;
  }
  place.start = row->tokens[first].start;
  place.start_byte = row->tokens[first].start_byte;
  place.end = row->tokens[last].end;
  place.end_byte = row->tokens[last].end_byte;
  return place;
}

/* A text in lower case, as Python's str.lower does it but for the Greek sigma at the end of words. */
static Buffer lower_case(Memory *memory, const TokenizerTable *table, const char *text, size_t size) {
  Buffer lower = {.memory = memory};
  for (size_t at = 0, end; at < size; at = end) {
    end = character_after(text, at);
    const CharacterMapping *mapping = lower_of(table, character_at(text, at));
    if (mapping == NULL) {
      buffer_add(&lower, text + at, end - at);
    } else {
      buffer_add(&lower, table->strings + mapping->text.place, mapping->text.size);
    }
  }
  return lower;
}

/* The answer in a list that reads the same, NULL if there is none. */
static edgeq_answer *same_answer(Memory *memory, const TokenizerTable *table, Buffer *answers, const char *text, size_t size) {
  Buffer wanted = lower_case(memory, table, text, size);
  edgeq_answer *items = (edgeq_answer *)(void *)answers->data, *found = NULL;
  for (size_t i = 0; i < answers->size / sizeof *items && found == NULL; i++) {
    Buffer other = lower_case(memory, table, items[i].text, items[i].text_size);
    if (other.size == wanted.size && (wanted.size == 0 || memcmp(other.data, wanted.data, wanted.size) == 0)) found = &items[i];
    buffer_release(&other);
  }
  buffer_release(&wanted);
  return found;
}

static void add_answer(const Answerer *answerer, const Row *row, const edgeq_text *context, Candidate candidate,
                       Buffer *answers) {
  edgeq_token first = word_place(answerer, row, candidate.first), last = word_place(answerer, row, candidate.last);
  const char *text = context->text + first.start_byte;
  size_t size = last.end_byte > first.start_byte ? last.end_byte - first.start_byte : 0;
  edgeq_answer *same = same_answer(answerer->memory, &answerer->model->tokenizer, answers, text, size);
  if (same != NULL) {
    same->score += candidate.score;
    return;
  }
  const edgeq_answer answer = {text, size, candidate.score, first.start, last.end, first.start_byte, last.end_byte};
  buffer_add(answers, &answer, sizeof answer);
}

/* Adds the answers of a row to a list, and returns the smaller of two probabilities of there being none. */
static double answers_of_row(const Answerer *answerer, size_t number, const edgeq_text *context, double none, Buffer *answers) {
  Memory *memory = answerer->memory;
  const edgeq_answer_options *options = answerer->options;
  const Row *row = &answerer->batch->rows[number].row;
  size_t count = row->count, used = 0, most = (size_t)options->top_k * (options->splits_words ? 1 : 2);
  if (!options->splits_words) most += 10; /* of words that are the same, one is left */
  bool *counts = allocate(memory, count, sizeof *counts);
  for (size_t i = 0; i < count; i++) {
    counts[i] = row->tokens[i].sequence == answerer->context || row->ids[i] == answerer->model->tokenizer.roles->classes;
  }
  double *starts = probabilities(memory, answerer->logits[number], counts, count);
  double *ends = probabilities(memory, answerer->logits[number] + count, counts, count);
  if (starts[0] * ends[0] < none) none = starts[0] * ends[0];
  starts[0] = ends[0] = 0;
  most = most < count * (size_t)options->longest ? most : count * (size_t)options->longest;
  Candidate *best = allocate(memory, most + 1, sizeof *best);
  for (size_t first = 0; first < count; first++) {
    for (size_t last = first; counts[first] && last < count && last - first < (size_t)options->longest; last++) {
      double score = starts[first] * ends[last];
      if (counts[last] && score > 0) used = keep_best(best, used, most, (Candidate){first, last, score});
    }
  }
  for (size_t i = 0; i < used; i++) add_answer(answerer, row, context, best[i], answers);
  release(memory, counts);
  release(memory, starts);
  release(memory, ends);
  release(memory, best);
  return none;
}

/* An answer with its place among equal ones, for sorting. */
typedef struct {
  edgeq_answer answer;
  size_t at;
} Ordered;

/* The best first, of equal ones the first first. */
static int by_score(const void *left, const void *right) {
  const Ordered *a = left, *b = right;
  if (a->answer.score != b->answer.score) return a->answer.score > b->answer.score ? -1 : 1;
  return a->at < b->at ? -1 : 1;
}

static edgeq_answers best_answers(const Answerer *answerer, const Buffer *all) {
  Memory *memory = answerer->memory;
  const edgeq_answer *items = (const edgeq_answer *)(const void *)all->data;
  size_t count = all->size / sizeof *items, most = (size_t)answerer->options->top_k;
  Ordered *ordered = allocate(memory, count, sizeof *ordered);
  for (size_t i = 0; i < count; i++) ordered[i] = (Ordered){items[i], i};
  if (count > 1) qsort(ordered, count, sizeof *ordered, by_score);
  if (most < count) count = most;
  edgeq_answer *best = allocate(memory, count, sizeof *best);
  for (size_t i = 0; i < count; i++) {
    best[i] = ordered[i].answer;
    char *text = allocate(memory, best[i].text_size + 1, 1); /* the context is the caller's */
    memcpy(text, best[i].text, best[i].text_size);
    best[i].text = text;
  }
  release(memory, ordered);
  return (edgeq_answers){best, count};
}

static void check_answering(const Memory *memory, const edgeq_answer_options *options) {
  if (options->top_k < 1 || options->top_k > INT32_MAX) {
    fail(memory, EDGEQ_USAGE, "at least one answer must be asked for, found %lld", (long long)options->top_k);
  }
  if (options->longest < 1) {
    fail(memory, EDGEQ_USAGE, "an answer has at least 1 token, found %lld", (long long)options->longest);
  }
}

/* Reads questions with their contexts in rows that overlap. */
static TextReader answer_reader(Memory *memory, const edgeq_session *session, const edgeq_text_options *given, bool swaps) {
  edgeq_text_options options;
  edgeq_text_defaults(&options);
  take_options(&options, sizeof options, given);
  int64_t longest = session->model->info.longest;
  if (options.max_tokens <= 0) options.max_tokens = longest > 0 && longest < LONGEST_ROW ? longest : LONGEST_ROW;
  if (options.overlap < 0) options.overlap = options.max_tokens / 2 < COMMON_TOKENS ? options.max_tokens / 2 : COMMON_TOKENS;
  if (options.on_long == EDGEQ_LONG_AS_MODEL) options.on_long = EDGEQ_LONG_SPLIT;
  options.truncation = swaps ? EDGEQ_ONLY_FIRST : EDGEQ_ONLY_SECOND;
  return place_reader(memory, session, &options, 0);
}

void answer_texts(edgeq_session *session, const edgeq_text *texts, size_t count, const edgeq_text_options *options,
                  const edgeq_answer_options *answering, edgeq_answers *found, edgeq_reading *readings) {
  const edgeq_model *model = session->model;
  Memory *memory = &session->call;
  const Interface *main = &model->functions[EDGEQ_MAIN].interface;
  Answerer answerer = {.memory = memory, .model = model, .options = answering};
  answerer.start = output_named(main, "start_logits", 2);
  answerer.end = output_named(main, "end_logits", 2);
  if (answerer.start == answerer.end) fail(memory, EDGEQ_USAGE, "the model has no outputs 'start_logits' and 'end_logits'");
  check_answering(memory, answering);
  if (model->no_tokenizer == NULL && model->tokenizer.lower_count == 0) {
    fail(memory, EDGEQ_USAGE, "the bundle's tokenizer is of an older version; compile the bundle again");
  }
  bool swaps = model->no_tokenizer == NULL && model->tokenizer.roles->second_first;
  TextReader reader = answer_reader(memory, session, options, swaps);
  if (reader.options.seconds == NULL) fail(memory, EDGEQ_USAGE, "a question needs a context in which to look for the answer");
  const edgeq_text *contexts = reader.options.seconds;
  if (swaps) reader.options.seconds = texts;
  Batch batch = read_batch(memory, &reader, swaps ? contexts : texts, count, readings);
  answerer.batch = &batch;
  answerer.context = swaps ? 0 : 1;
  answerer.logits = allocate(memory, batch.row_count, sizeof *answerer.logits);
  run_batch(session, &batch, take_row, &answerer);
  size_t row = 0;
  for (size_t i = 0; i < count; i++) {
    Buffer answers = {.memory = memory};
    double none = 1e6;
    for (size_t k = 0; k < batch.texts[i].count; k++) none = answers_of_row(&answerer, row++, &contexts[i], none, &answers);
    const edgeq_answer no_answer = {"", 0, none, 0, 0, 0, 0};
    if (answering->may_be_none) buffer_add(&answers, &no_answer, sizeof no_answer);
    found[i] = best_answers(&answerer, &answers);
    buffer_release(&answers);
  }
}
