/* edgeq-run: runs a bundle on the board it was compiled for: a command line around edgeq.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stop.h"
#include "generate.h"
#include "linked_kernels.h"
#include "options.h"
#include "output.h"
#include "profile.h"
#include "results.h"
#include "system.h"
#include "task_options.h"
#include "tensor_file.h"
#include "text_sources.h"
#include "texts.h"

static edgeq_model *open_model(const Options *options) {
  edgeq_open_options how = {.size = sizeof how,
                            .variant = options->variant,
                            .threads = (int32_t)options->threads,
                            .skip_digests = options->no_verify,
                            .verify_all = options->verify_all};
  how.kernels = linked_kernels(&how.kernel_count);
  edgeq_model *model = NULL;
  edgeq_status status = edgeq_open(options->bundle, &how, &model);
  if (status != EDGEQ_OK) stop(exit_code(status), "%s", edgeq_error(model));
  return model;
}

static edgeq_session *open_session(const edgeq_model *model, const Options *options) {
  const edgeq_session_options how = {.size = sizeof how, .threads = (int32_t)options->threads};
  edgeq_session *session = NULL;
  check(edgeq_session_open(model, &how, &session), session);
  return session;
}

static void self_test(edgeq_session *session, bool json) {
  uint64_t values = 0, differing = 0;
  edgeq_status status = edgeq_self_test(session, &values, &differing);
  if (json && (status == EDGEQ_OK || differing > 0)) {
    printf("{\"ok\": %s, \"values\": %llu, \"differing\": %llu}\n", differing == 0 ? "true" : "false",
           (unsigned long long)values, (unsigned long long)differing);
  }
  check(status, session);
  if (!json) {
    printf("self-test passed: %llu output values agree with the golden ones in every bit\n", (unsigned long long)values);
  }
}

static void time_text(const edgeq_model *model, edgeq_session *session, const Text *text, const Options *options) {
  size_t count = (size_t)options->repeat;
  double *seconds = reserve(count, sizeof *seconds);
  edgeq_tensor *outputs = reserve(edgeq_output_count(model, EDGEQ_MAIN), sizeof *outputs);
  for (size_t i = 0; i < count; i++) {
    double start = now();
    run_ids(model, session, text, outputs);
    seconds[i] = now() - start;
  }
  print_times(seconds, count, text->line, options->json);
  free(outputs);
  free(seconds);
}

/* --raw prints outputs of ids, --repeat times them. */
static void run_ids_of_texts(const edgeq_model *model, edgeq_session *session, Texts *texts, const Options *options) {
  encode_texts(session, texts);
  edgeq_text *given = given_texts(texts);
  /* Every text is checked before the first is run: a mistake in the last line costs no time. */
  check(edgeq_check_texts(session, given, texts->count), session);
  for (size_t i = 0; i < texts->count; i++) {
    const Texts one = {&texts->items[i], 1};
    if (options->raw) {
      print_raw_result(model, session, &texts->items[i], options->json);
    } else {
      print_results(model, session, &one, options);
    }
    if (options->repeat > 0) time_text(model, session, &texts->items[i], options);
  }
  free(given);
}

static void run_texts(const edgeq_model *model, edgeq_session *session, Texts *texts, const Options *options) {
  if (options->tokens) {
    print_tokens(session, texts, options);
  } else if (options->generate) {
    encode_texts(session, texts);
    generate_texts(session, texts, options);
  } else if (options->raw || options->repeat > 0) {
    run_ids_of_texts(model, session, texts, options);
  } else if (options->query != NULL) {
    print_ranks(session, texts, options);
  } else {
    print_results(model, session, texts, options);
  }
}

/* Leaves nothing half written. */
static _Noreturn void fail_to_write(FILE *out, const char *partial, const char *path) {
  int reason = errno;
  if (out != NULL) fclose(out);
  remove(partial);
  stop(EXIT_FAULT, "cannot write %s: %s", path, strerror(reason));
}

static void run_tensors(const edgeq_model *model, edgeq_session *session, const Options *options) {
  TensorReader reader = open_tensors(options->tensors, model);
  size_t length = strlen(options->out) + sizeof ".partial";
  char *partial = reserve(length, 1);
  snprintf(partial, length, "%s.partial", options->out);
  FILE *out = open_file(partial, "wb");
  if (out == NULL) stop(EXIT_USAGE, "cannot write %s: %s", partial, strerror(errno));
  write_tensors_header(out, reader.sets);
  for (uint32_t set = 0; set < reader.sets; set++) {
    int32_t function = EDGEQ_MAIN;
    edgeq_tensor *inputs = next_inputs(&reader, &function);
    edgeq_tensor *outputs = reserve(edgeq_output_count(model, function), sizeof *outputs);
    check(edgeq_run(session, function, inputs, outputs), session);
    write_tensors(out, model, function, outputs);
    if (ferror(out) || fflush(out) != 0) fail_to_write(out, partial, options->out);
    free(outputs);
    release_inputs(model, function, inputs);
  }
  close_tensors(&reader);
  /* The file appears under its name only when it is whole. */
  if (fclose(out) != 0 || !rename_file(partial, options->out)) fail_to_write(NULL, partial, options->out);
  free(partial);
}

/* Sets before the last one fill the caches that it reads. */
static void run_profile(const edgeq_model *model, edgeq_session *session, const Options *options) {
  TensorReader reader = open_tensors(options->profile, model);
  if (reader.sets == 0) stop(EXIT_USAGE, "%s holds no set of inputs", options->profile);
  for (uint32_t set = 0; set < reader.sets; set++) {
    int32_t function = EDGEQ_MAIN;
    edgeq_tensor *inputs = next_inputs(&reader, &function);
    if (set + 1 == reader.sets) {
      close_tensors(&reader);
      profile_set(model, session, function, inputs, options->repeat);
    } else {
      edgeq_tensor *outputs = reserve(edgeq_output_count(model, function), sizeof *outputs);
      check(edgeq_run(session, function, inputs, outputs), session);
      free(outputs);
    }
    release_inputs(model, function, inputs);
  }
}

static void check_task(const edgeq_model *model, const Options *options) {
  const edgeq_info *info = edgeq_model_info(model);
  if (options->generate && info->context == 0) {
    stop(EXIT_USAGE, "the bundle generates no text: it is for '%s'; leave --generate out", info->task);
  }
  if (has_texts(options) && !options->tokens && !options->generate && info->context > 0) {
    stop(EXIT_USAGE, "the bundle generates text: give --generate N");
  }
  check_task_options(options, info->task);
}

int main(int count, char **arguments) {
  arguments = program_arguments(&count, arguments);
  Options options = read_options(count, arguments);
  edgeq_model *model = open_model(&options);
  check_task(model, &options);
  edgeq_session *session = open_session(model, &options);
  Texts texts = read_texts(&options);
  if (options.self_test) {
    self_test(session, options.json);
  } else if (has_texts(&options)) {
    run_texts(model, session, &texts, &options);
  } else if (options.profile != NULL) {
    run_profile(model, session, &options);
  } else {
    run_tensors(model, session, &options);
  }
  if (fflush(stdout) != 0) stop(EXIT_FAULT, "cannot write to standard output: %s", strerror(errno));
#if !defined(__SANITIZE_ADDRESS__)
  /* The system takes everything back at once, which closing would only delay. A sanitizer is to see what is not closed. */
  _Exit(EXIT_SUCCESS);
#endif
  edgeq_session_close(session);
  edgeq_close(model);
  return EXIT_SUCCESS;
}
