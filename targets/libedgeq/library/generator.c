#include "generator.h"

#include <math.h>
#include <string.h>

#include "beams.h"
#include "clock.h"
#include "decoder.h"
#include "text_stream.h"
#include "texts.h"

/* Where neither the caller nor the model says. */
enum { NEW_TOKENS_OF_A_PROMPT = 100, NEW_TOKENS_OF_A_SOURCE = 128 };
/* Room for text that is taken at once, so that a token needs no memory. */
enum { BYTES_PER_TOKEN = 16, MOST_RESERVED = 1 << 20 };

/* One text at work. */
typedef struct {
  Tokens given;
  int64_t asked; /* new tokens, if nothing else ends the text */
  Rules rules;
  Tokens made;
  size_t shown;   /* of those: with beam search all are made before the first is shown */
  Sampler *sampler;
  double score, seconds; /* of the best text, with beam search; from the first token to the last */
  int64_t *banned;
  TextStream stream;
  int32_t finish;
} Sequence;

/* Texts that run together, and their newest tokens. */
typedef struct {
  Decoder *decoder;
  size_t *open, *rows; /* numbers of texts that are not complete; which of them go on */
  Tokens *newest;
  size_t count, shown; /* open texts; how many of them have shown their newest token */
  const float *logits;
  double start; /* when the first token came; 0 before */
  bool searches;
} Batch;

struct Generator {
  const edgeq_model *model;
  edgeq_session *session;
  Settings settings;
  edgeq_generation options;
  Stop *stops;
  Sequence *sequences;
  size_t count, next; /* texts; the first that has not begun */
  Memory batch_memory;
  Batch batch;
  bool is_broken; /* a failure ended it between two tokens */
};

/* ---- starting ---- */

static void end_generator(void *generator) { release_all(&((Generator *)generator)->batch_memory); }

void generator_end(edgeq_session *session) {
  session->generator = NULL;
  release_all(&session->generation);
}

static void copy_stops(Memory *memory, Generator *generator) {
  const edgeq_generation *options = &generator->options;
  generator->stops = allocate(memory, options->stop_count, sizeof *generator->stops);
  for (size_t i = 0; i < options->stop_count; i++) {
    if (options->stop[i] == NULL || options->stop[i][0] == '\0') {
      fail(memory, EDGEQ_USAGE, "stop text %zu is empty; leave it out", i + 1);
    }
    generator->stops[i] = (Stop){copy_text(memory, options->stop[i]), strlen(options->stop[i])};
  }
  if (options->stop_count > 0 && generator->model->no_tokenizer != NULL) {
    fail(memory, EDGEQ_USAGE, "stop texts need a tokenizer, but %s", generator->model->no_tokenizer);
  }
}

static void reserve(Buffer *buffer, size_t bytes) {
  if (bytes > MOST_RESERVED) bytes = MOST_RESERVED;
  buffer->data = allocate(buffer->memory, bytes, 1);
  buffer->room = bytes;
}

static void start_stream(Memory *memory, const Generator *generator, Sequence *sequence) {
  sequence->stream = (TextStream){.output = {.table = &generator->model->tokenizer, .held = {.memory = memory}},
                                  .stops = generator->stops,
                                  .stop_count = generator->options.stop_count,
                                  .text = {.memory = memory}};
  if (generator->model->no_tokenizer != NULL) return;
  reserve(&sequence->stream.text, ((size_t)sequence->rules.most + 4) * BYTES_PER_TOKEN);
  reserve(&sequence->stream.output.held, 8 * BYTES_PER_TOKEN);
}

static void start_sequence(Memory *memory, const Generator *generator, Sequence *sequence) {
  const edgeq_model *model = generator->model;
  const Generation *generation = &model->generation;
  Rules *rules = &sequence->rules;
  rules->generation = generation;
  rules->ignore_end = generator->options.ignore_end != 0;
  rules->prefix = sequence->given;
  if (reads_source(model)) rules->prefix = (Tokens){(int64_t *)(uintptr_t)&generation->start_id, 1};
  int64_t prefix = (int64_t)rules->prefix.count;
  /* The last token that is made takes no slot of the cache. */
  int64_t room = generation->context - prefix + 1;
  int64_t otherwise = reads_source(model) ? NEW_TOKENS_OF_A_SOURCE : NEW_TOKENS_OF_A_PROMPT;
  sequence->asked = most_new_tokens(&generator->settings, prefix, otherwise);
  rules->most = sequence->asked < room ? sequence->asked : room;
  rules->fewest = fewest_new_tokens(&generator->settings, prefix);
  rules->ngram_size = generator->settings.no_repeat_ngram_size;
  sequence->score = NAN;
  sequence->made.ids = allocate(memory, (size_t)rules->most, sizeof *sequence->made.ids);
  sequence->banned = allocate(memory, banned_room(rules), sizeof *sequence->banned);
  start_stream(memory, generator, sequence);
}

static void check_options(const Memory *memory, const edgeq_model *model, const Generator *generator) {
  if (model->generation.context == 0) {
    fail(memory, EDGEQ_USAGE, "the bundle makes no text: it is for '%s'", model->info.task);
  }
  if (generator->settings.beams.count > 1 && !reads_source(model)) {
    fail(memory, EDGEQ_USAGE, "beam search is for bundles that read a source; ask for 1 beam");
  }
  if (generator->options.batch < 1 || generator->options.batch > 1024) {
    fail(memory, EDGEQ_USAGE, "batch must be an integer in 1..1024, found %lld", (long long)generator->options.batch);
  }
  if (generator->settings.beams.count > 1 && generator->options.stop_count > 0) {
    fail(memory, EDGEQ_USAGE, "beam search knows no stop texts; ask for 1 beam");
  }
}

void generator_start(edgeq_session *session, const edgeq_text *texts, size_t count, const edgeq_generation *options) {
  const edgeq_model *model = session->model;
  Memory *memory = &session->generation;
  generator_end(session);
  Generator *generator = allocate_with(memory, sizeof *generator, end_generator);
  generator->batch_memory = (Memory){memory->allocator, memory->failure, NULL};
  generator->model = model;
  generator->session = session;
  generator->options = *options;
  generator->settings = changed_settings(memory, &model->generation.settings, options);
  check_options(memory, model, generator);
  if (count == 0) fail(memory, EDGEQ_USAGE, "there is no text; give at least one");
  copy_stops(memory, generator);
  generator->sequences = allocate(memory, count, sizeof *generator->sequences);
  generator->count = count;
  const Tokens *given = checked_texts(memory, session, texts, count);
  for (size_t i = 0; i < count; i++) {
    generator->sequences[i].given = given[i];
    start_sequence(memory, generator, &generator->sequences[i]);
  }
  session->generator = generator;
}

/* ---- batches ---- */

static void start_sampler(Generator *generator, Sequence *sequence) {
  sequence->sampler = sampler_new(&generator->batch_memory, &generator->settings.sampling,
                                  (size_t)generator->model->generation.vocabulary);
  for (size_t i = 0; i < sequence->rules.prefix.count; i++) {
    sampler_see(sequence->sampler, sequence->rules.prefix.ids[i]);
  }
}

/* Begins as many texts as may run together, or one to be searched for with beams. */
static void start_batch(Generator *generator) {
  Memory *memory = &generator->batch_memory;
  Batch *batch = &generator->batch;
  size_t first = generator->next, beams = (size_t)generator->settings.beams.count, left = generator->count - first;
  size_t count = beams > 1 || left < (size_t)generator->options.batch ? left : (size_t)generator->options.batch;
  release_all(memory);
  *batch = (Batch){.searches = beams > 1, .count = beams > 1 ? 1 : count};
  batch->open = allocate(memory, batch->count, sizeof *batch->open);
  batch->rows = allocate(memory, batch->count, sizeof *batch->rows);
  batch->newest = allocate(memory, batch->count, sizeof *batch->newest);
  batch->shown = batch->count;
  for (size_t i = 0; i < batch->count; i++) {
    batch->open[i] = first + i;
    batch->newest[i] = generator->sequences[first + i].given;
  }
  generator->next = first + batch->count;
  if (batch->searches) return;
  for (size_t i = 0; i < batch->count; i++) start_sampler(generator, &generator->sequences[first + i]);
  if (!reads_source(generator->model)) {
    batch->decoder = decoder_open(memory, generator->session, batch->count);
    return;
  }
  batch->decoder = decoder_open_sources(memory, generator->session, batch->newest, batch->count, 1);
  for (size_t i = 0; i < batch->count; i++) batch->newest[i] = generator->sequences[first + i].rules.prefix;
}

/* ---- one token of every text ---- */

static void choose(Generator *generator, Sequence *sequence, const float *logits) {
  int64_t token = forced_token(&sequence->rules, sequence->made.count);
  if (token >= 0) {
    sampler_see(sequence->sampler, token);
  } else {
    size_t count = banned_tokens(&sequence->rules, &sequence->made, sequence->banned);
    token = sampler_choose(&generator->batch_memory, sequence->sampler, logits, sequence->banned, count);
  }
  sequence->made.ids[sequence->made.count++] = token;
}

/* Texts that are complete leave the batch, and each of the others gets one token. */
static void advance(Generator *generator) {
  Batch *batch = &generator->batch;
  size_t kept = 0, count = batch->count;
  for (size_t row = 0; row < count; row++) {
    Sequence *sequence = &generator->sequences[batch->open[row]];
    if (sequence->finish != EDGEQ_UNFINISHED) continue;
    batch->rows[kept] = row;
    batch->open[kept] = batch->open[row];
    batch->newest[kept] = batch->newest[row];
    if (sequence->made.count > 0) batch->newest[kept] = (Tokens){sequence->made.ids + sequence->made.count - 1, 1};
    kept++;
  }
  batch->count = kept;
  batch->shown = 0;
  if (kept == 0) return;
  if (kept < count) decoder_keep(batch->decoder, batch->rows, kept);
  batch->logits = decoder_append(batch->decoder, batch->newest);
  double start = now();
  if (batch->start == 0) batch->start = start;
  for (size_t row = 0; row < kept; row++) {
    Sequence *sequence = &generator->sequences[batch->open[row]];
    choose(generator, sequence, batch->logits + row * batch->decoder->vocabulary);
    sequence->seconds = now() - batch->start;
  }
}

/* Beam search: the beams of one text are the batch. */
static void search_text(Generator *generator) {
  Memory *memory = &generator->batch_memory;
  Sequence *sequence = &generator->sequences[generator->batch.open[0]];
  const Settings *settings = &generator->settings;
  size_t count = (size_t)settings->beams.count;
  Tokens *newest = allocate(memory, count, sizeof *newest);
  int64_t *tokens = allocate(memory, count, sizeof *tokens);
  size_t *parents = allocate(memory, count, sizeof *parents);
  Decoder *decoder = decoder_open_sources(memory, generator->session, &sequence->given, 1, count);
  Search *search = search_new(memory, &settings->beams, &sequence->rules, settings->sampling.repetition_penalty,
                              decoder->vocabulary);
  double start = 0;
  for (size_t i = 0; i < count; i++) {
    tokens[i] = generator->model->generation.start_id;
    newest[i] = (Tokens){&tokens[i], 1};
  }
  for (bool open = true; open;) {
    const float *logits = decoder_append(decoder, newest);
    if (start == 0) start = now();
    open = search_advance(memory, search, logits, parents, tokens);
    if (open) decoder_reorder(decoder, parents);
  }
  const Hypothesis *best = search_best(search);
  memcpy(sequence->made.ids, best->text.ids, best->text.count * sizeof *best->text.ids);
  sequence->made.count = best->text.count;
  sequence->score = best->score;
  sequence->seconds = now() - start;
  generator->batch.shown = 0;
}

/* ---- pieces ---- */

static int32_t finish_of(const Sequence *sequence) {
  if (ends_text(&sequence->rules, sequence->made.ids[sequence->shown - 1])) return EDGEQ_FINISH_END;
  if (sequence->stream.stopped) return EDGEQ_FINISH_STOP;
  if ((int64_t)sequence->shown < sequence->rules.most) return EDGEQ_UNFINISHED;
  return sequence->rules.most == sequence->asked ? EDGEQ_FINISH_LENGTH : EDGEQ_FINISH_CONTEXT;
}

static void show(Generator *generator, size_t row, edgeq_piece *piece) {
  Batch *batch = &generator->batch;
  Sequence *sequence = &generator->sequences[batch->open[row]];
  TextStream *stream = &sequence->stream;
  size_t before = stream->certain;
  int64_t token = sequence->made.ids[sequence->shown++];
  bool has_text = generator->model->no_tokenizer == NULL;
  if (has_text) text_stream_add(stream, token);
  int32_t finish = finish_of(sequence);
  if (finish != EDGEQ_UNFINISHED && has_text) text_stream_finish(stream);
  /* A last, incomplete character may have completed a stop text. */
  sequence->finish = finish != EDGEQ_UNFINISHED && stream->stopped ? EDGEQ_FINISH_STOP : finish;
  *piece = (edgeq_piece){.index = batch->open[row],
                         .token = token,
                         .text = stream->text.data != NULL ? stream->text.data + before : "",
                         .text_size = stream->certain - before,
                         .finish = sequence->finish};
  if (!batch->searches) piece->logits = batch->logits + row * batch->decoder->vocabulary;
}

static bool make_piece(Generator *generator, edgeq_piece *piece) {
  Batch *batch = &generator->batch;
  for (;;) {
    if (batch->searches && batch->count == 1) { /* one text, all of whose tokens are made */
      if (batch->decoder == NULL && generator->sequences[batch->open[0]].made.count == 0) search_text(generator);
      const Sequence *sequence = &generator->sequences[batch->open[0]];
      if (sequence->shown < sequence->made.count) {
        show(generator, 0, piece);
        return true;
      }
      batch->count = 0;
    } else if (batch->shown < batch->count) {
      show(generator, batch->shown++, piece);
      return true;
    } else if (batch->count > 0) {
      advance(generator);
    }
    if (batch->count > 0) continue;
    if (generator->next == generator->count) return false;
    start_batch(generator);
  }
}

bool generator_next(edgeq_session *session, edgeq_piece *piece) {
  Generator *generator = session->generator;
  if (generator == NULL) fail(&session->call, EDGEQ_USAGE, "no texts are started; call edgeq_generate_start first");
  if (generator->is_broken) {
    fail(&session->call, EDGEQ_USAGE, "the texts were ended by a failure; call edgeq_generate_start again");
  }
  generator->is_broken = true;
  bool made = make_piece(generator, piece);
  generator->is_broken = false;
  return made;
}

void generator_result(edgeq_session *session, size_t index, edgeq_generated *generated) {
  const Generator *generator = session->generator;
  if (generator == NULL || index >= generator->count) {
    fail(&session->call, EDGEQ_USAGE, "there is no text %zu; call edgeq_generate_start first", index);
  }
  const Sequence *sequence = &generator->sequences[index];
  *generated = (edgeq_generated){.ids = sequence->made.ids,
                                 .id_count = sequence->shown,
                                 .text = sequence->stream.text.data != NULL ? sequence->stream.text.data : "",
                                 .text_size = sequence->stream.certain,
                                 .prompt_tokens = sequence->given.count,
                                 .score = sequence->score,
                                 .seconds = sequence->seconds,
                                 .finish = sequence->finish};
}
