#include "tags.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "token_texts.h"
#include "utf8.h"
#include "vectors.h"

/* A token, or after words were made of tokens a word, with the score of each label. */
typedef struct {
  TokenText word;
  const double *scores;
  size_t label; /* number of the best one */
  double score;
  const edgeq_token *first, *last;
  size_t index;
  bool continues; /* the word of the one before */
} Tagged;

typedef struct {
  Memory *memory;
  const edgeq_model *model;
  const edgeq_tag_options *options;
  const Batch *batch;
  const edgeq_text *texts;
  size_t output, labels;
  const char **names; /* of labels */
  Buffer *rows;       /* edgeq_entity each; for every row of the batch */
} Tagger;

static size_t best_of(const double *scores, size_t count) {
  size_t best = 0;
  for (size_t k = 1; k < count; k++) best = scores[k] > scores[best] ? k : best;
  return best;
}

static const double *softmax(Memory *memory, const float *logits, size_t count) {
  double *scores = allocate(memory, count, sizeof *scores);
  class_scores(SCORES_SOFTMAX, logits, count, scores);
  return scores;
}

static size_t characters_in(TokenText text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size; at = character_after(text.text, at)) count++;
  return count;
}

/* Whether a token goes on with the word of the one before: a tokenizer that knows words has shorter texts for such tokens
 * than names; with another one, it does so if there is no space before it. */
static bool continues_word(const Tagger *tagger, const edgeq_token *token, TokenText name, TokenText sentence) {
  if (tagger->model->tokenizer.roles->knows_words) return characters_in(name) != token->end - token->start;
  if (token->start == 0 || token->start_byte == 0) return false;
  bool space = sentence.text[token->start_byte - 1] == ' ';
  space |= token->start_byte < sentence.size && sentence.text[token->start_byte] == ' ';
  return !space;
}

static Tagged tagged_token(const Tagger *tagger, const edgeq_token *token, size_t index, const float *logits, TokenText sentence) {
  const TokenizerTable *table = &tagger->model->tokenizer;
  Tagged tagged = {.word = token_name(table, token->id), .first = token, .last = token, .index = index};
  tagged.continues = continues_word(tagger, token, tagged.word, sentence);
  if (token->id == table->roles->unknown) {
    tagged.word = (TokenText){sentence.text + token->start_byte, token->end_byte - token->start_byte};
    tagged.continues = false;
  }
  tagged.scores = softmax(tagger->memory, logits, tagger->labels);
  tagged.label = best_of(tagged.scores, tagger->labels);
  tagged.score = tagged.scores[tagged.label];
  return tagged;
}

static TokenText join_tagged(const Tagger *tagger, const Tagged *items, size_t count) {
  TokenText *names = allocate(tagger->memory, count, sizeof *names);
  Buffer text = {.memory = tagger->memory};
  for (size_t i = 0; i < count; i++) names[i] = items[i].word;
  join_names(&tagger->model->tokenizer, names, count, &text);
  release(tagger->memory, names);
  return (TokenText){text.size > 0 ? text.data : "", text.size};
}

/* Tokens of a word become one. */
static Tagged tagged_word(const Tagger *tagger, const Tagged *tokens, size_t count) {
  size_t chosen = 0;
  Tagged word = tokens[0];
  if (tagger->options->aggregation == EDGEQ_TAG_MAX) {
    for (size_t i = 1; i < count; i++) chosen = tokens[i].score > tokens[chosen].score ? i : chosen;
  }
  word.label = tokens[chosen].label;
  word.score = tokens[chosen].score;
  if (tagger->options->aggregation == EDGEQ_TAG_AVERAGE) {
    double *average = allocate(tagger->memory, tagger->labels, sizeof *average);
    for (size_t i = 0; i < count; i++) {
      for (size_t k = 0; k < tagger->labels; k++) average[k] += tokens[i].scores[k] / (double)count;
    }
    word.label = best_of(average, tagger->labels);
    word.score = average[word.label];
  }
  word.word = join_tagged(tagger, tokens, count);
  word.last = tokens[count - 1].last;
  return word;
}

/* Makes words of tokens in place; returns how many. */
static size_t make_words(const Tagger *tagger, Tagged *items, size_t count) {
  size_t words = 0;
  for (size_t start = 0, end; start < count; start = end) {
    for (end = start + 1; end < count && items[end].continues;) end++;
    items[words++] = tagged_word(tagger, items + start, end - start);
  }
  return words;
}

static bool begins(const char *label) { return strncmp(label, "B-", 2) == 0; }

/* What a label says without its B- or I-. */
static const char *kind_of(const char *label) { return begins(label) || strncmp(label, "I-", 2) == 0 ? label + 2 : label; }

static void add_entity(const Tagger *tagger, const Tagged *items, size_t count, const char *label, TokenText word,
                       Buffer *out) {
  edgeq_entity entity = {.label = label, .word_size = word.size, .index = items[0].index};
  for (size_t i = 0; i < tagger->options->ignored_count; i++) {
    if (strcmp(tagger->options->ignored[i], label) == 0) return;
  }
  char *copy = allocate(tagger->memory, word.size + 1, 1);
  memcpy(copy, word.text, word.size);
  entity.word = copy;
  const edgeq_token *first = items[0].first, *last = items[count - 1].last;
  for (size_t i = 0; i < count; i++) entity.score += items[i].score / (double)count;
  entity.start = first->start;
  entity.start_byte = first->start_byte;
  entity.end = last->end;
  entity.end_byte = last->end_byte;
  buffer_add(out, &entity, sizeof entity);
}

/* Items of one kind that follow each other become an entity. */
static void add_groups(const Tagger *tagger, const Tagged *items, size_t count, Buffer *out) {
  for (size_t start = 0, end; start < count; start = end) {
    const char *label = tagger->names[items[start].label], *dash = strchr(label, '-');
    for (end = start + 1; end < count; end++) {
      const char *next = tagger->names[items[end].label];
      if (begins(next) || strcmp(kind_of(next), kind_of(label)) != 0) break;
    }
    TokenText word = join_tagged(tagger, items + start, end - start);
    add_entity(tagger, items + start, end - start, dash != NULL ? dash + 1 : label, word, out);
  }
}

static void take_row(void *context, const TextRow *row, const edgeq_tensor *outputs, size_t place) {
  Tagger *tagger = context;
  const edgeq_text *text = &tagger->texts[row->text];
  const float *logits = row_values(&outputs[tagger->output], place);
  Buffer *out = &tagger->rows[row - tagger->batch->rows];
  Tagged *items = allocate(tagger->memory, row->row.count, sizeof *items);
  size_t count = 0;
  for (size_t i = 0; i < row->row.count; i++) {
    const edgeq_token *token = &row->row.tokens[i];
    if (token->sequence == EDGEQ_SPECIAL_TOKEN) continue;
    items[count++] = tagged_token(tagger, token, i, logits + i * tagger->labels, (TokenText){text->text, text->size});
  }
  if (tagger->options->aggregation > EDGEQ_TAG_SIMPLE) count = make_words(tagger, items, count);
  if (tagger->options->aggregation != EDGEQ_TAG_NONE) {
    add_groups(tagger, items, count, out);
    return;
  }
  for (size_t i = 0; i < count; i++) {
    add_entity(tagger, &items[i], 1, tagger->names[items[i].label], items[i].word, out);
  }
}

/* By start; of equal ones the first first. */
static int by_start(const void *left, const void *right) {
  const edgeq_entity *a = *(const edgeq_entity *const *)left, *b = *(const edgeq_entity *const *)right;
  if (a->start != b->start) return a->start < b->start ? -1 : 1;
  return a < b ? -1 : a > b;
}

/* Of entities of several rows that overlap, keeps the longest, and of equal ones the one with the greater score. */
static edgeq_entities without_overlaps(Memory *memory, const edgeq_entity *items, size_t count) {
  const edgeq_entity **sorted = allocate(memory, count, sizeof *sorted);
  edgeq_entity *kept = allocate(memory, count, sizeof *kept);
  size_t used = 0;
  for (size_t i = 0; i < count; i++) sorted[i] = &items[i];
  if (count > 1) qsort(sorted, count, sizeof *sorted, by_start);
  for (size_t i = 0; i < count; i++) {
    const edgeq_entity *entity = sorted[i];
    edgeq_entity *before = used > 0 ? &kept[used - 1] : NULL;
    if (before == NULL || entity->start < before->start || entity->start >= before->end) {
      kept[used++] = *entity;
      continue;
    }
    size_t length = entity->end - entity->start, other = before->end - before->start;
    if (length > other || (length == other && entity->score > before->score)) *before = *entity;
  }
  return (edgeq_entities){kept, used};
}

static edgeq_entities entities_of(const Tagger *tagger, size_t text, size_t first_row) {
  Buffer all = {.memory = tagger->memory};
  size_t rows = tagger->batch->texts[text].count;
  for (size_t i = 0; i < rows; i++) {
    const Buffer *row = &tagger->rows[first_row + i];
    buffer_add(&all, row->data, row->size);
  }
  const edgeq_entity *items = (const edgeq_entity *)(const void *)all.data;
  size_t count = all.size / sizeof *items;
  return rows > 1 ? without_overlaps(tagger->memory, items, count) : (edgeq_entities){items, count};
}

/* Names of labels; those without one are called LABEL_0 and so on. */
static const char **label_names(Memory *memory, const edgeq_info *info, size_t count) {
  const char **names = allocate(memory, count, sizeof *names);
  for (size_t i = 0; i < count; i++) {
    if (i < info->label_count) {
      names[i] = info->labels[i];
      continue;
    }
    char *name = allocate(memory, 32, 1);
    snprintf(name, 32, "LABEL_%zu", i);
    names[i] = name;
  }
  return names;
}

void tag_texts(edgeq_session *session, const edgeq_text *texts, size_t count, const edgeq_text_options *options,
               const edgeq_tag_options *tagging, edgeq_entities *found, edgeq_reading *readings) {
  const edgeq_model *model = session->model;
  Memory *memory = &session->call;
  const Interface *main = &model->functions[EDGEQ_MAIN].interface;
  Tagger tagger = {.memory = memory, .model = model, .options = tagging, .texts = texts};
  tagger.output = output_named(main, "logits", 3);
  tagger.labels = (size_t)model->info.width;
  if (tagger.output == main->output_count || tagger.labels == 0) {
    fail(memory, EDGEQ_USAGE, "the model has no float32 output of a number for each label; run it on tensors");
  }
  if (tagging->aggregation < EDGEQ_TAG_NONE || tagging->aggregation > EDGEQ_TAG_MAX) {
    fail(memory, EDGEQ_USAGE, "an aggregation has a number in %d..%d, found %d", EDGEQ_TAG_NONE, EDGEQ_TAG_MAX,
         (int)tagging->aggregation);
  }
  if (model->no_tokenizer == NULL) check_names_known(memory, &model->tokenizer);
  TextReader reader = place_reader(memory, session, options, QUARTER_OF_A_ROW);
  if (reader.options.seconds != NULL) fail(memory, EDGEQ_USAGE, "parts of single texts are labelled; leave the second ones out");
  Batch batch = read_batch(memory, &reader, texts, count, readings);
  tagger.batch = &batch;
  tagger.names = label_names(memory, &model->info, tagger.labels);
  tagger.rows = allocate(memory, batch.row_count, sizeof *tagger.rows);
  for (size_t i = 0; i < batch.row_count; i++) tagger.rows[i].memory = memory;
  run_batch(session, &batch, take_row, &tagger);
  size_t row = 0;
  for (size_t i = 0; i < count; i++) {
    found[i] = entities_of(&tagger, i, row);
    row += batch.texts[i].count;
  }
}
