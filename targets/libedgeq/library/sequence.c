#include "sequence.h"

#include <math.h>
#include <string.h>

#include "platform.h"

/* Where neither the caller nor the model says. */
enum { NEW_TOKENS_OF_A_PROMPT = 100, NEW_TOKENS_OF_A_SOURCE = 128 };
/* Room for text that is taken at once, so that a token needs no memory. */
enum { BYTES_PER_TOKEN = 16, MOST_RESERVED = 1 << 20 };

static void release_sequence(void *memory) {
  Sequence *sequence = memory;
  release_all(&sequence->choosing);
  release_all(&sequence->memory);
}

Sequence *sequence_new(edgeq_session *session) {
  const Memory *parent = &session->generation;
  Sequence *sequence = allocate_with(&session->generation, sizeof *sequence, release_sequence);
  sequence->model = session->model;
  sequence->memory = sequence->choosing = (Memory){.allocator = parent->allocator, .failure = parent->failure};
  sequence->score = NAN;
  return sequence;
}

void sequence_ask(Sequence *sequence, const edgeq_generation *options) {
  Memory *memory = &sequence->memory;
  const edgeq_model *model = sequence->model;
  sequence->settings = changed_settings(memory, &model->generation.settings, options);
  sequence->rules.ignore_end = options->ignore_end != 0;
  if (sequence->settings.beams.count > 1 && !reads_source(model)) {
    fail(memory, EDGEQ_USAGE, "beam search is for encoder-decoders; ask for 1 beam");
  }
  if (sequence->settings.beams.count > 1 && options->stop_count > 0) {
    fail(memory, EDGEQ_USAGE, "beam search takes no stop texts; ask for 1 beam");
  }
  sequence->stops = allocate(memory, options->stop_count, sizeof *sequence->stops);
  for (size_t i = 0; i < options->stop_count; i++) {
    if (options->stop[i] == NULL || options->stop[i][0] == '\0') {
      fail(memory, EDGEQ_USAGE, "stop text %zu is empty; leave it out", i + 1);
    }
    sequence->stops[i] = (Stop){copy_text(memory, options->stop[i]), strlen(options->stop[i])};
  }
  sequence->stop_count = options->stop_count;
  if (options->stop_count > 0 && model->no_tokenizer != NULL) {
    fail(memory, EDGEQ_USAGE, "stop texts need a tokenizer, but %s", model->no_tokenizer);
  }
}

static void reserve(Buffer *buffer, size_t bytes) {
  if (bytes > MOST_RESERVED) bytes = MOST_RESERVED;
  buffer->data = allocate(buffer->memory, bytes, 1);
  buffer->room = bytes;
}

static void start_stream(Sequence *sequence) {
  Memory *memory = &sequence->memory;
  sequence->stream = (TextStream){.output = {.table = &sequence->model->tokenizer, .held = {.memory = memory}},
                                  .stops = sequence->stops,
                                  .stop_count = sequence->stop_count,
                                  .text = {.memory = memory}};
  if (sequence->model->no_tokenizer != NULL) return;
  reserve(&sequence->stream.text, ((size_t)sequence->rules.most + 4) * BYTES_PER_TOKEN);
  reserve(&sequence->stream.output.held, 8 * BYTES_PER_TOKEN);
}

void sequence_prepare(Sequence *sequence, Tokens given) {
  const Generation *generation = &sequence->model->generation;
  bool has_source = reads_source(sequence->model);
  Rules *rules = &sequence->rules;
  sequence->given = given;
  rules->generation = generation;
  rules->prefix = has_source ? (Tokens){(int64_t *)(uintptr_t)&generation->start_id, 1} : given;
  int64_t prefix = (int64_t)rules->prefix.count;
  /* The last token that is made takes no slot of the cache. */
  int64_t room = generation->context - prefix + 1;
  sequence->asked = most_new_tokens(&sequence->settings, prefix, has_source ? NEW_TOKENS_OF_A_SOURCE
                                                                            : NEW_TOKENS_OF_A_PROMPT);
  rules->most = sequence->asked < room ? sequence->asked : room;
  rules->fewest = fewest_new_tokens(&sequence->settings, prefix);
  rules->ngram_size = sequence->settings.no_repeat_ngram_size;
  sequence->made.ids = allocate(&sequence->memory, (size_t)rules->most, sizeof *sequence->made.ids);
  start_stream(sequence);
}

void sequence_begin(Sequence *sequence) {
  const Rules *rules = &sequence->rules;
  sequence->banned = allocate(&sequence->choosing, banned_room(rules), sizeof *sequence->banned);
  sequence->sampler = sampler_new(&sequence->choosing, &sequence->settings.sampling,
                                  (size_t)sequence->model->generation.vocabulary);
  for (size_t i = 0; i < rules->prefix.count; i++) sampler_see(sequence->sampler, rules->prefix.ids[i]);
}

void sequence_choose(Sequence *sequence, const float *logits) {
  double time = now();
  if (sequence->start == 0) sequence->start = time;
  int64_t token = forced_token(&sequence->rules, sequence->made.count);
  if (token >= 0) {
    sampler_see(sequence->sampler, token);
  } else {
    size_t count = banned_tokens(&sequence->rules, &sequence->made, sequence->banned);
    token = sampler_choose(&sequence->memory, sequence->sampler, logits, sequence->banned, count);
  }
  sequence->made.ids[sequence->made.count++] = token;
  sequence->seconds = time - sequence->start;
}

static int32_t finish_of(const Sequence *sequence) {
  if (ends_text(&sequence->rules, sequence->made.ids[sequence->shown - 1])) return EDGEQ_FINISH_END;
  if (sequence->stream.stopped) return EDGEQ_FINISH_STOP;
  if ((int64_t)sequence->shown < sequence->rules.most) return EDGEQ_UNFINISHED;
  return sequence->rules.most == sequence->asked ? EDGEQ_FINISH_LENGTH : EDGEQ_FINISH_CONTEXT;
}

void sequence_show(Sequence *sequence, edgeq_piece *piece) {
  TextStream *stream = &sequence->stream;
  size_t before = stream->certain;
  int64_t token = sequence->made.ids[sequence->shown++];
  bool has_text = sequence->model->no_tokenizer == NULL;
  if (has_text) text_stream_add(stream, token);
  int32_t finish = finish_of(sequence);
  if (finish != EDGEQ_UNFINISHED && has_text) text_stream_finish(stream);
  /* A last, incomplete character may have completed a stop text. */
  sequence->finish = finish != EDGEQ_UNFINISHED && stream->stopped ? EDGEQ_FINISH_STOP : finish;
  *piece = (edgeq_piece){.index = sequence->index,
                         .token = token,
                         .text = stream->text.data != NULL ? stream->text.data + before : "",
                         .text_size = stream->certain - before,
                         .finish = sequence->finish};
}
