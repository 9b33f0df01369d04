#include "generate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "stop.h"
#include "output.h"

/* What is the same for all texts. */
typedef struct {
  edgeq_session *session;
  const Texts *texts;
  const Options *options;
  bool as_text;
} Job;

static void print_bytes(const char *text, size_t size) {
  if (size > 0) fwrite(text, 1, size, stdout);
}

static void print_start(const Job *job, size_t index) {
  if (job->options->json) printf("{\"line\": %zu, \"ids\": [", job->texts->items[index].line);
}

static void print_token(const Job *job, size_t number, int64_t token) {
  if (job->as_text && !job->options->json) return;
  if (number > 0) fputs(job->options->json ? ", " : " ", stdout);
  printf("%lld", (long long)token);
}

static void print_end(const Job *job, size_t index) {
  static const char *const reasons[] = {[EDGEQ_UNFINISHED] = "unfinished", [EDGEQ_FINISH_END] = "end",
                                        [EDGEQ_FINISH_LENGTH] = "length", [EDGEQ_FINISH_CONTEXT] = "context",
                                        [EDGEQ_FINISH_STOP] = "stop"};
  edgeq_generated made;
  check(edgeq_generate_result(job->session, index, &made), job->session);
  size_t line = job->texts->items[index].line;
  /* The first token comes from reading the prompt. */
  double rate = made.id_count > 1 && made.seconds > 0 ? (double)(made.id_count - 1) / made.seconds : 0;
  if (!job->options->json) {
    puts("");
    fprintf(stderr, "line %zu: %zu tokens (%s), %.1f tokens a second\n", line, made.id_count, reasons[made.finish],
            rate);
    return;
  }
  putchar(']');
  if (job->as_text) {
    fputs(", \"text\": ", stdout);
    print_json_text(made.text, made.text_size);
  }
  printf(", \"finish\": \"%s\", \"prompt_tokens\": %zu", reasons[made.finish], made.prompt_tokens);
  if (!isnan(made.score)) printf(", \"score\": %.17g", made.score);
  printf(rate > 0 ? ", \"tokens_per_second\": %.3f}\n" : ", \"tokens_per_second\": null}\n", rate);
}

/* Texts that run together are printed when they are complete, in order. */
static void print_whole(const Job *job, size_t index) {
  edgeq_generated made;
  check(edgeq_generate_result(job->session, index, &made), job->session);
  print_start(job, index);
  for (size_t i = 0; i < made.id_count; i++) print_token(job, i, made.ids[i]);
  if (job->as_text && !job->options->json) print_bytes(made.text, made.text_size);
  print_end(job, index);
}

static void print_piece(const Job *job, const edgeq_piece *piece, size_t number) {
  if (number == 0) print_start(job, piece->index);
  print_token(job, number, piece->token);
  if (job->as_text && !job->options->json) print_bytes(piece->text, piece->text_size);
  if (!job->options->json) fflush(stdout);
  if (piece->finish != EDGEQ_UNFINISHED) print_end(job, piece->index);
}

void generate_texts(edgeq_session *session, const Texts *texts, const Options *options) {
  const Job job = {session, texts, options, needs_tokenizer(options)};
  edgeq_text *given = given_texts(texts);
  bool alone = options->generation.batch <= 1;
  bool *complete = reserve(texts->count, sizeof *complete);
  size_t printed = 0, number = 0;
  edgeq_piece piece;
  check(edgeq_generate_start(session, given, texts->count, &options->generation), session);
  for (;;) {
    edgeq_status status = edgeq_generate_next(session, &piece);
    if (status == EDGEQ_END) break;
    check(status, session);
    if (alone) {
      print_piece(&job, &piece, number);
      number = piece.finish == EDGEQ_UNFINISHED ? number + 1 : 0;
      continue;
    }
    complete[piece.index] = piece.finish != EDGEQ_UNFINISHED;
    while (printed < texts->count && complete[printed]) print_whole(&job, printed++);
  }
  free(complete);
  free(given);
}
