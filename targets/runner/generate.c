#include "generate.h"

#include <stdio.h>
#include <stdlib.h>

#include "clock.h"
#include "decoder.h"
#include "fail.h"
#include "inputs.h"

static bool ends_text(const Bundle *bundle, const Options *options, int64_t token) {
  for (size_t i = 0; i < bundle->end_count && !options->ignore_end; i++) {
    if (bundle->end_ids[i] == token) return true;
  }
  return false;
}

static void check_prompt(const Bundle *bundle, const Text *text) {
  int64_t most = bundle->inputs[0].maximum;
  for (size_t i = 0; i < text->count; i++) {
    if (text->ids[i] > most) {
      fail(EXIT_USAGE, "line %zu of the ids holds %lld; ids lie in 0..%lld", text->line, (long long)text->ids[i],
           (long long)most);
    }
  }
  if ((int64_t)text->count > bundle->context) {
    fail(EXIT_USAGE, "line %zu of the ids has %zu tokens, the bundle's context holds %lld; shorten it", text->line,
         text->count, (long long)bundle->context);
  }
}

static void print_end(const Text *text, int64_t made, const char *finish, double seconds, bool json) {
  /* The first token comes from reading the prompt. */
  double rate = made > 1 && seconds > 0 ? (double)(made - 1) / seconds : 0;
  if (json) {
    printf("], \"finish\": \"%s\", \"prompt_tokens\": %zu, \"tokens_per_second\": ", finish, text->count);
    printf(rate > 0 ? "%.3f}\n" : "null}\n", rate);
  } else {
    puts("");
    fprintf(stderr, "line %zu: %lld tokens (%s), %.1f tokens a second\n", text->line, (long long)made, finish, rate);
  }
}

static void continue_text(const Bundle *bundle, Model *model, const Text *text, const Options *options) {
  const char *finish = NULL;
  int64_t made = 0, room = bundle->context - (int64_t)text->count;
  double start = 0;
  Decoder decoder = decoder_open(bundle, model);
  Sampler *sampler = sampler_new(&options->sampling, (size_t)bundle->outputs[0].shape[1]);
  for (size_t i = 0; i < text->count; i++) sampler_see(sampler, text->ids[i]);
  const float *logits = decoder_append(&decoder, text->ids, text->count, "a prompt");
  if (options->json) printf("{\"line\": %zu, \"ids\": [", text->line);
  while (finish == NULL) {
    int64_t token = sampler_choose(sampler, logits);
    if (made++ == 0) start = now();
    if (made > 1) fputs(options->json ? ", " : " ", stdout);
    printf("%lld", (long long)token);
    if (!options->json) fflush(stdout);
    if (ends_text(bundle, options, token)) {
      finish = "end";
    } else if (made == options->generate) {
      finish = "length";
    } else if (made > room) {
      finish = "context";
    } else {
      logits = decoder_append(&decoder, &token, 1, "a token");
    }
  }
  print_end(text, made, finish, now() - start, options->json);
  sampler_release(sampler);
  decoder_close(&decoder);
}

void generate_texts(const Bundle *bundle, Model *model, const Options *options) {
  size_t count = 0;
  Text *texts = read_texts(options->ids, &count);
  /* Every text is checked before the first is run: a mistake in the last line costs no time. */
  for (size_t i = 0; i < count; i++) check_prompt(bundle, &texts[i]);
  for (size_t i = 0; i < count; i++) continue_text(bundle, model, &texts[i], options);
}
