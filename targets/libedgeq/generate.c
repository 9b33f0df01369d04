#include "generate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "beams.h"
#include "clock.h"
#include "decoder.h"
#include "fail.h"
#include "output.h"
#include "tokenizer.h"

/* Where neither the caller nor the model says. */
enum { NEW_TOKENS_OF_A_PROMPT = 100, NEW_TOKENS_OF_A_SOURCE = 128 };

/* One text at work. */
typedef struct {
  const Text *given;
  int64_t asked; /* new tokens, if nothing else ends the text */
  Rules rules;
  Tokens made;
  Sampler *sampler;
  double score, seconds; /* of the best text, with beam search; from the first token to the last */
  int64_t *banned;
  TextOutput output; /* `text` as far as it is certain */
  Buffer text;
} Sequence;

/* What is the same for all texts. */
typedef struct {
  const Bundle *bundle;
  Model *model;
  const Options *options;
  const Texts *texts;
  Settings settings;
} Job;

static void check_text(const Bundle *bundle, const Text *text, const char *kind) {
  int64_t most = bundle->functions[MAIN].inputs[0].maximum;
  int64_t context = reads_source(bundle) ? bundle->generation.source_context : bundle->generation.context;
  for (size_t i = 0; i < text->count; i++) {
    if (text->ids[i] > most) {
      fail(EXIT_USAGE, "line %zu of the %s holds %lld; ids lie in 0..%lld", text->line, kind,
           (long long)text->ids[i], (long long)most);
    }
  }
  if ((int64_t)text->count > context) {
    fail(EXIT_USAGE, "line %zu of the %s has %zu tokens, the bundle's context holds %lld; shorten it", text->line,
         kind, text->count, (long long)context);
  }
}

static Sequence start_sequence(const Job *job, const Text *text) {
  const Generation *generation = &job->bundle->generation;
  Sequence sequence = {.given = text, .output = {.table = &job->texts->tokenizer}};
  Rules *rules = &sequence.rules;
  rules->generation = generation;
  rules->ignore_end = job->options->ignore_end;
  if (reads_source(job->bundle)) {
    rules->prefix = (Tokens){(int64_t *)(uintptr_t)&generation->start_id, 1};
  } else {
    rules->prefix = (Tokens){text->ids, text->count};
  }
  int64_t prefix = (int64_t)rules->prefix.count;
  /* The last token that is made takes no slot of the cache. */
  int64_t room = generation->context - prefix + 1;
  int64_t otherwise = reads_source(job->bundle) ? NEW_TOKENS_OF_A_SOURCE : NEW_TOKENS_OF_A_PROMPT;
  sequence.asked = most_new_tokens(&job->settings, prefix, otherwise);
  rules->most = sequence.asked < room ? sequence.asked : room;
  rules->fewest = fewest_new_tokens(&job->settings, prefix);
  rules->ngram_size = job->settings.no_repeat_ngram_size;
  sequence.made.ids = allocate((size_t)rules->most, sizeof *sequence.made.ids);
  sequence.banned = allocate(banned_room(rules), sizeof *sequence.banned);
  return sequence;
}

static void start_sampler(const Job *job, Sequence *sequence) {
  sequence->sampler = sampler_new(&job->settings.sampling, (size_t)job->bundle->functions[MAIN].outputs[0].shape[1]);
  for (size_t i = 0; i < sequence->rules.prefix.count; i++) {
    sampler_see(sequence->sampler, sequence->rules.prefix.ids[i]);
  }
}

static void end_sequence(Sequence *sequence) {
  if (sequence->sampler != NULL) sampler_release(sequence->sampler);
  free(sequence->made.ids);
  free(sequence->banned);
  buffer_release(&sequence->text);
}

static bool has_ended(const Sequence *sequence) {
  const Tokens *made = &sequence->made;
  return (int64_t)made->count == sequence->rules.most || ends_text(&sequence->rules, made->ids[made->count - 1]);
}

static void choose(Sequence *sequence, const float *logits) {
  int64_t token = forced_token(&sequence->rules, sequence->made.count);
  if (token >= 0) {
    sampler_see(sequence->sampler, token);
  } else {
    size_t count = banned_tokens(&sequence->rules, &sequence->made, sequence->banned);
    token = sampler_choose(sequence->sampler, logits, sequence->banned, count);
  }
  sequence->made.ids[sequence->made.count++] = token;
}

static void print_start(const Job *job, const Sequence *sequence) {
  if (job->options->json) printf("{\"line\": %zu, \"ids\": [", sequence->given->line);
}

/* Decodes the newest token; without --json it is printed as far as its characters are whole. */
static void print_text(const Job *job, Sequence *sequence) {
  const Tokens *made = &sequence->made;
  size_t before = sequence->text.size;
  text_output_add(&sequence->output, made->ids[made->count - 1], &sequence->text);
  if (job->options->json) return;
  fwrite(sequence->text.data + before, 1, sequence->text.size - before, stdout);
  fflush(stdout);
}

static void print_newest(const Job *job, Sequence *sequence) {
  const Tokens *made = &sequence->made;
  if (needs_tokenizer(job->options)) print_text(job, sequence);
  if (needs_tokenizer(job->options) && !job->options->json) return;
  if (made->count > 1) fputs(job->options->json ? ", " : " ", stdout);
  printf("%lld", (long long)made->ids[made->count - 1]);
  if (!job->options->json) fflush(stdout);
}

/* The end of an incomplete character, and with --json the whole text. */
static void print_rest(const Job *job, Sequence *sequence) {
  size_t before = sequence->text.size;
  text_output_finish(&sequence->output, &sequence->text);
  if (job->options->json) {
    fputs("], \"text\": ", stdout);
    print_json_text(sequence->text.data, sequence->text.size);
  } else {
    fwrite(sequence->text.data + before, 1, sequence->text.size - before, stdout);
  }
}

static void print_end(const Job *job, Sequence *sequence) {
  const Tokens *made = &sequence->made;
  const char *finish = sequence->rules.most == sequence->asked ? "length" : "context";
  if (ends_text(&sequence->rules, made->ids[made->count - 1])) finish = "end";
  /* The first token comes from reading the prompt. */
  double rate = made->count > 1 && sequence->seconds > 0 ? (double)(made->count - 1) / sequence->seconds : 0;
  if (needs_tokenizer(job->options)) {
    print_rest(job, sequence);
  } else if (job->options->json) {
    putchar(']');
  }
  if (job->options->json) {
    printf(", \"finish\": \"%s\", \"prompt_tokens\": %zu", finish, sequence->given->count);
    if (job->settings.beams.count > 1) printf(", \"score\": %.17g", sequence->score);
    printf(rate > 0 ? ", \"tokens_per_second\": %.3f}\n" : ", \"tokens_per_second\": null}\n", rate);
  } else {
    puts("");
    fprintf(stderr, "line %zu: %zu tokens (%s), %.1f tokens a second\n", sequence->given->line, made->count, finish,
            rate);
  }
}

static void print_whole(const Job *job, Sequence *sequence) {
  size_t count = sequence->made.count;
  print_start(job, sequence);
  for (sequence->made.count = 1; sequence->made.count < count; sequence->made.count++) print_newest(job, sequence);
  print_newest(job, sequence);
  print_end(job, sequence);
}

static Decoder open_decoder(const Job *job, const Sequence *sequences, size_t count, Tokens *newest) {
  if (!reads_source(job->bundle)) {
    for (size_t i = 0; i < count; i++) newest[i] = sequences[i].rules.prefix;
    return decoder_open(job->bundle, job->model, count);
  }
  for (size_t i = 0; i < count; i++) newest[i] = (Tokens){sequences[i].given->ids, sequences[i].given->count};
  Decoder decoder = decoder_open_sources(job->bundle, job->model, newest, count, 1);
  for (size_t i = 0; i < count; i++) newest[i] = sequences[i].rules.prefix;
  return decoder;
}

/* Greedy or by chance, all texts of a batch at once. A text alone is printed as it comes. */
static void write_together(const Job *job, Sequence *sequences, size_t count) {
  bool alone = count == 1;
  Tokens *newest = allocate(count, sizeof *newest);
  size_t *open = allocate(count, sizeof *open), *rows = allocate(count, sizeof *rows), left = count;
  for (size_t i = 0; i < count; i++) open[i] = i;
  for (size_t i = 0; i < count; i++) start_sampler(job, &sequences[i]);
  Decoder decoder = open_decoder(job, sequences, count, newest);
  double start = 0;
  if (alone) print_start(job, sequences);
  while (left > 0) {
    const float *logits = decoder_append(&decoder, newest);
    size_t kept = 0;
    if (start == 0) start = now();
    for (size_t row = 0; row < left; row++) {
      Sequence *sequence = &sequences[open[row]];
      choose(sequence, logits + row * decoder.vocabulary);
      sequence->seconds = now() - start;
      if (alone) print_newest(job, sequence);
      if (!has_ended(sequence)) {
        rows[kept] = row;
        open[kept] = open[row];
        newest[kept++] = (Tokens){sequence->made.ids + sequence->made.count - 1, 1};
      }
    }
    if (kept > 0 && kept < left) decoder_keep(&decoder, rows, kept);
    left = kept;
  }
  decoder_close(&decoder);
  if (alone) print_end(job, sequences);
  for (size_t i = 0; i < count && !alone; i++) print_whole(job, &sequences[i]);
  free(newest);
  free(open);
  free(rows);
}

/* Beam search: the beams of one text are the batch. */
static void search_text(const Job *job, Sequence *sequence) {
  size_t count = (size_t)job->settings.beams.count;
  Tokens source = {sequence->given->ids, sequence->given->count}, *newest = allocate(count, sizeof *newest);
  int64_t *tokens = allocate(count, sizeof *tokens);
  size_t *parents = allocate(count, sizeof *parents);
  Decoder decoder = decoder_open_sources(job->bundle, job->model, &source, 1, count);
  Search *search =
      search_new(&job->settings.beams, &sequence->rules, job->settings.sampling.repetition_penalty, decoder.vocabulary);
  double start = 0;
  for (size_t i = 0; i < count; i++) {
    tokens[i] = job->bundle->generation.start_id;
    newest[i] = (Tokens){&tokens[i], 1};
  }
  for (bool open = true; open;) {
    const float *logits = decoder_append(&decoder, newest);
    if (start == 0) start = now();
    open = search_advance(search, logits, parents, tokens);
    if (open) decoder_reorder(&decoder, parents);
  }
  const Hypothesis *best = search_best(search);
  memcpy(sequence->made.ids, best->text.ids, best->text.count * sizeof *best->text.ids);
  sequence->made.count = best->text.count;
  sequence->score = best->score;
  sequence->seconds = now() - start;
  print_whole(job, sequence);
  search_release(search);
  decoder_close(&decoder);
  free(newest);
  free(tokens);
  free(parents);
}

void generate_texts(const Bundle *bundle, Model *model, const Texts *given, const Options *options) {
  const Text *texts = given->items;
  size_t count = given->count;
  Job job = {bundle, model, options, given, changed_settings(&bundle->generation.settings, &options->changes)};
  if (job.settings.beams.count > 1 && !reads_source(bundle)) {
    fail(EXIT_USAGE, "beam search is for bundles that read a source; leave --num-beams out");
  }
  /* Every text is checked before the first is run: a mistake in the last line costs no time. */
  for (size_t i = 0; i < count; i++) check_text(bundle, &texts[i], given->kind);
  size_t together = job.settings.beams.count > 1 ? 1 : (size_t)options->batch;
  Sequence *sequences = allocate(together, sizeof *sequences);
  for (size_t first = 0; first < count; first += together) {
    size_t size = count - first < together ? count - first : together;
    for (size_t i = 0; i < size; i++) sequences[i] = start_sequence(&job, &texts[first + i]);
    if (job.settings.beams.count > 1) {
      search_text(&job, &sequences[0]);
    } else {
      write_together(&job, sequences, size);
    }
    for (size_t i = 0; i < size; i++) end_sequence(&sequences[i]);
  }
  free(sequences);
}
