#include "reading.h"

#include <stdio.h>
#include <string.h>

#include "buffer.h"
#include "options.h"
#include "utf8.h"

const char *text_name(Memory *memory, const TextReader *reader, const edgeq_text *text, size_t index) {
  if (text->name != NULL) return text->name;
  char *name = allocate(memory, 32, 1);
  snprintf(name, 32, "text %lld", (long long)index + (long long)reader->options.first_number);
  return name;
}

static bool is_blank(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++) {
    if (text[i] == '\0' || strchr(" \t\r\n\v\f", text[i]) == NULL) return false;
  }
  return true;
}

void check_text(const Memory *memory, const edgeq_text *text, const char *name) {
  for (size_t at = 0; at < text->size;) {
    size_t length = character_size(text->text + at, text->size - at);
    if (length == 0 || text->text[at] == '\0') {
      fail(memory, EDGEQ_USAGE, "%s is not UTF-8: it holds byte 0x%02x", name, (unsigned char)text->text[at]);
    }
    at += length;
  }
  if (is_blank(text->text, text->size)) fail(memory, EDGEQ_USAGE, "%s is empty; give at least one word", name);
}

static const Spec *find_input(const Interface *interface, const char *name) {
  for (size_t i = 0; i < interface->input_count; i++) {
    if (strcmp(interface->inputs[i].name, name) == 0) return &interface->inputs[i];
  }
  return NULL;
}

/* The function that reads texts. */
static const Function *reading_function(const edgeq_model *model) {
  return &model->functions[reads_source(model) ? EDGEQ_ENCODE : EDGEQ_MAIN];
}

/* Most tokens of a row, 0 if nothing limits it. The limit of prompts of generated texts is the generator's business. */
static int64_t longest_row(const edgeq_model *model) {
  int64_t own = model->texts.longest, longest = model->info.longest;
  if (model->generation.context > 0) return 0;
  return own > 0 && (longest == 0 || own < longest) ? own : longest;
}

static const char *find_prompt(Memory *memory, const edgeq_model *model, const char *name) {
  Buffer known = {.memory = memory};
  if (name == NULL) return model->texts.prompt;
  for (size_t i = 0; i < model->texts.prompt_count; i++) {
    const Prompt *prompt = &model->texts.prompts[i];
    if (strcmp(prompt->name, name) == 0) return prompt->text;
    if (i > 0) buffer_add(&known, ", ", 2);
    buffer_add(&known, "'", 1);
    buffer_add(&known, prompt->name, strlen(prompt->name));
    buffer_add(&known, "'", 1);
  }
  if (known.size == 0) buffer_add(&known, "none", 4);
  buffer_add(&known, "", 1);
  fail(memory, EDGEQ_USAGE, "the bundle has no prompt '%s'; its prompts are: %s", name, known.data);
}

/* Tokens of the prompt with those before it, without a special one behind it; cut as a text is. */
static size_t count_prompt(Memory *memory, const edgeq_model *model, const char *prompt, size_t longest) {
  const TextPart part = {prompt, strlen(prompt)};
  const TokenizerTable *table = &model->tokenizer;
  const Framing framing = {.longest = longest, .cuts_left = model->texts.cuts_left};
  Rows rows = encode_parts(memory, table, &part, 1, &framing, "the prompt");
  bool ends = table->single_count > 0 && table->single[table->single_count - 1].kind == FRAME_TOKEN;
  return rows.rows[0].count - ends;
}

/* A function of edgeq.h that the tasks need too: what they are not told about reading is as here. */
void edgeq_text_defaults(edgeq_text_options *options) {
  *options = (edgeq_text_options){.size = sizeof *options, .token_budget = 256, .overlap = -1, .first_number = 1};
}

static void check_reading(const Memory *memory, const edgeq_text_options *options) {
  bool known = options->on_long >= EDGEQ_LONG_AS_MODEL && options->on_long <= EDGEQ_LONG_SPLIT &&
               options->truncation >= EDGEQ_LONGEST_FIRST && options->truncation <= EDGEQ_ONLY_SECOND;
  if (!known) fail(memory, EDGEQ_USAGE, "what to do with long texts has no meaning: %d, %d", (int)options->on_long,
                   (int)options->truncation);
  if (options->batch < 0) fail(memory, EDGEQ_USAGE, "a batch of no texts is not possible");
  if (options->batch == 0 && options->token_budget < 1) {
    fail(memory, EDGEQ_USAGE, "the token budget must be at least 1, found %lld", (long long)options->token_budget);
  }
  if (options->max_tokens < 0) {
    fail(memory, EDGEQ_USAGE, "the most tokens of a text must be at least 1, found %lld", (long long)options->max_tokens);
  }
}

TextReader text_reader(Memory *memory, const edgeq_session *session, const edgeq_text_options *given, size_t overlap,
                   bool is_traced) {
  const edgeq_model *model = session->model;
  TextReader reader = {.session = session};
  edgeq_text_options *options = &reader.options;
  edgeq_text_defaults(options);
  take_options(options, sizeof *options, given);
  check_reading(memory, options);
  reader.prompt = find_prompt(memory, model, options->prompt_name);
  int64_t longest = longest_row(model);
  if (options->max_tokens > 0 && (longest == 0 || options->max_tokens < longest)) longest = options->max_tokens;
  if (overlap == QUARTER_OF_A_ROW) overlap = (size_t)longest / 4;
  reader.refuses_long = options->on_long == EDGEQ_LONG_ERROR || (options->on_long == EDGEQ_LONG_AS_MODEL && !model->texts.cuts);
  reader.framing = (Framing){.longest = reader.refuses_long ? 0 : (size_t)longest,
                             .truncation = options->truncation,
                             .cuts_left = model->texts.cuts_left,
                             .keeps_windows = options->on_long == EDGEQ_LONG_SPLIT,
                             .overlap = options->overlap >= 0 ? (size_t)options->overlap : overlap,
                             .is_traced = is_traced};
  bool reads_mask = find_input(&reading_function(model)->interface, "pooling_mask") != NULL;
  if (reads_mask && *reader.prompt != '\0' && model->no_tokenizer == NULL) {
    reader.prompt_tokens = count_prompt(memory, model, reader.prompt, reader.framing.longest);
  }
  options->max_tokens = longest;
  return reader;
}

TextReader place_reader(Memory *memory, const edgeq_session *session, const edgeq_text_options *options, size_t overlap) {
  TextReader reader = text_reader(memory, session, options, overlap, true);
  if (*reader.prompt != '\0') {
    fail(memory, EDGEQ_USAGE, "prompts do not go with models for '%s'; leave them out", session->model->info.task);
  }
  return reader;
}

const edgeq_text *second_of(const TextReader *reader, size_t index) {
  const edgeq_text *seconds = reader->options.seconds;
  bool has = seconds != NULL && (seconds[index].text != NULL || seconds[index].ids != NULL);
  return has ? &seconds[index] : NULL;
}

/* A row of token ids as they are given. */
static Rows rows_of_ids(Memory *memory, const TextReader *reader, const edgeq_text *text, const char *name) {
  if (text->id_count == 0) fail(memory, EDGEQ_USAGE, "%s is empty; give at least one token", name);
  if (reader->framing.is_traced) fail(memory, EDGEQ_USAGE, "%s is token ids, but this task needs texts", name);
  Row *row = allocate(memory, 1, sizeof *row);
  row->count = text->id_count;
  row->ids = allocate(memory, row->count, sizeof *row->ids);
  row->types = allocate(memory, row->count, sizeof *row->types);
  memcpy(row->ids, text->ids, row->count * sizeof *row->ids);
  return (Rows){.rows = row, .count = 1, .tokens = row->count};
}

static void check_row(const Memory *memory, const edgeq_model *model, const TextReader *reader, const Row *row, const char *name) {
  const Function *reads = reading_function(model);
  const Spec *input = find_input(&reads->interface, "input_ids");
  int64_t most = input != NULL && input->has_maximum ? input->maximum : INT64_MAX, longest = reads->longest;
  if (reader->options.max_tokens > 0 && (longest == 0 || reader->options.max_tokens < longest)) {
    longest = reader->options.max_tokens;
  }
  for (size_t i = 0; i < row->count; i++) {
    if (row->ids[i] < 0 || row->ids[i] > most) {
      fail(memory, EDGEQ_USAGE, "%s holds %lld; ids lie in 0..%lld", name, (long long)row->ids[i], (long long)most);
    }
  }
  if (longest > 0 && row->count > (uint64_t)longest) {
    fail(memory, EDGEQ_USAGE, "%s has %zu tokens, the model takes at most %lld; shorten or split it", name, row->count,
         (long long)longest);
  }
}

Rows read_text(Memory *memory, const TextReader *reader, const edgeq_text *text, const edgeq_text *second, const char *name) {
  const edgeq_model *model = reader->session->model;
  if (text->text == NULL || (second != NULL && second->text == NULL)) {
    if (second != NULL) fail(memory, EDGEQ_USAGE, "%s is a pair, which needs two texts", name);
    return rows_of_ids(memory, reader, text, name);
  }
  if (model->no_tokenizer != NULL) {
    fail(memory, EDGEQ_USAGE, "%s needs a tokenizer, but %s; give token ids", name, model->no_tokenizer);
  }
  check_text(memory, text, name);
  if (second != NULL) check_text(memory, second, name);
  Buffer whole = {.memory = memory};
  buffer_add(&whole, reader->prompt, strlen(reader->prompt));
  buffer_add(&whole, text->text, text->size);
  TextPart parts[2] = {{whole.data, whole.size}, {NULL, 0}};
  if (second != NULL) parts[1] = (TextPart){second->text, second->size};
  Rows rows = encode_parts(memory, &model->tokenizer, parts, second != NULL ? 2 : 1, &reader->framing, name);
  buffer_release(&whole);
  if (rows.rows[0].count == 0) fail(memory, EDGEQ_USAGE, "%s has no tokens; give at least one word", name);
  return rows;
}

/* Fails if the model does not take one of the rows. */
static void check_rows(const Memory *memory, const TextReader *reader, const Rows *rows, const char *name) {
  for (size_t i = 0; i < rows->count; i++) check_row(memory, reader->session->model, reader, &rows->rows[i], name);
}

Rows read_checked(Memory *memory, const TextReader *reader, const edgeq_text *text, const edgeq_text *second,
                  const char *name) {
  Rows rows = read_text(memory, reader, text, second, name);
  check_rows(memory, reader, &rows, name);
  return rows;
}

edgeq_reading reading_of(const Rows *rows) {
  size_t tokens = rows->is_cut ? rows->rows[0].count : rows->tokens;
  return (edgeq_reading){.tokens = tokens, .rows = rows->count, .is_cut = rows->is_cut};
}

Tokens *checked_texts(Memory *memory, const edgeq_session *session, const edgeq_text *texts, size_t count) {
  const Function *reads = reading_function(session->model);
  if (find_input(&reads->interface, "input_ids") == NULL) {
    fail(memory, EDGEQ_USAGE, "the model has no input 'input_ids'; give tensors");
  }
  Tokens *all = allocate(memory, count, sizeof *all);
  TextReader reader = text_reader(memory, session, NULL, 0, false);
  for (size_t i = 0; i < count; i++) {
    Rows rows = read_checked(memory, &reader, &texts[i], NULL, text_name(memory, &reader, &texts[i], i));
    all[i] = (Tokens){rows.rows[0].ids, rows.rows[0].count};
  }
  return all;
}
