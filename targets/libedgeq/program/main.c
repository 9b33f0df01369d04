/* edgeq-run: runs a bundle on the board it was compiled for. Needs only the C library and the two TVM runtime
 * libraries in the bundle. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "clock.h"
#include "fail.h"
#include "generate.h"
#include "inputs.h"
#include "model.h"
#include "options.h"
#include "output.h"
#include "profile.h"
#include "state.h"
#include "tensor_file.h"

/* Sets of inputs for one batch size follow each other on one state; a new batch size starts a new one. */
typedef struct {
  const Bundle *bundle;
  Model *model;
  State state;
  int64_t batch; /* 0 before the first */
} Session;

static void use_state_for(Session *session, const Array *inputs) {
  int64_t batch = inputs[0].shape[0];
  if (session->bundle->generation.context > 0 && session->batch != batch) {
    State fresh = state_new(session->bundle, batch);
    model_use_state(session->model, &fresh);
    if (session->batch > 0) state_release(&session->state);
    session->state = fresh;
    session->batch = batch;
  }
}

static Outputs run_set(Session *session, FunctionName name, const Array *inputs) {
  use_state_for(session, inputs);
  return model_run(session->model, name, inputs);
}

static size_t count_differing(const Function *function, const Array *found, const Array *wanted, size_t *values) {
  size_t differing = 0;
  for (size_t i = 0; i < function->output_count; i++) {
    size_t size = wanted[i].type->bits / 8u;
    if (memcmp(found[i].shape, wanted[i].shape, (size_t)wanted[i].dimensions * sizeof *wanted[i].shape) != 0) {
      fail(EXIT_FAULT, "self-test failed: output '%s' has another shape than the golden one",
           function->outputs[i].name);
    }
    for (size_t at = 0; at < wanted[i].bytes; at += size) {
      ++*values;
      differing += memcmp((const char *)found[i].data + at, (const char *)wanted[i].data + at, size) != 0;
    }
  }
  return differing;
}

static void self_test(const Bundle *bundle, Model *model, bool json) {
  size_t values = 0, differing = 0;
  Session session = {.bundle = bundle, .model = model};
  for (size_t i = 0; i < bundle->golden_count; i++) {
    const GoldenRun *golden = &bundle->golden[i];
    check_inputs(bundle, golden->function, golden->inputs, "golden.bin");
    Outputs outputs = run_set(&session, golden->function, golden->inputs);
    differing += count_differing(&bundle->functions[golden->function], outputs.arrays, golden->outputs, &values);
    outputs_release(model, &outputs);
  }
  if (json) {
    printf("{\"ok\": %s, \"values\": %zu, \"differing\": %zu}\n", differing == 0 ? "true" : "false", values,
           differing);
  }
  if (differing > 0) {
    fail(EXIT_FAULT, "self-test failed: %zu of %zu output values differ from the golden ones", differing, values);
  }
  if (!json) printf("self-test passed: %zu output values agree with the golden ones in every bit\n", values);
}

static void time_text(Model *model, const Array *inputs, size_t line, const Options *options) {
  size_t count = (size_t)options->repeat;
  double *seconds = allocate(count, sizeof *seconds);
  for (size_t i = 0; i < count; i++) {
    double start = now();
    Outputs outputs = model_run(model, MAIN, inputs);
    seconds[i] = now() - start;
    outputs_release(model, &outputs);
  }
  print_times(seconds, count, line, options->json);
  free(seconds);
}

static void run_texts(const Bundle *bundle, Model *model, const Texts *given, const Options *options) {
  const Text *texts = given->items;
  size_t count = given->count;
  Array **inputs = allocate(count, sizeof *inputs);
  /* Every text is checked before the first is run: a mistake in the last line costs no time. */
  for (size_t i = 0; i < count; i++) {
    char where[64];
    snprintf(where, sizeof where, "line %zu of the %s", texts[i].line, given->kind);
    inputs[i] = inputs_from_text(bundle, &texts[i]);
    check_inputs(bundle, MAIN, inputs[i], where);
  }
  for (size_t i = 0; i < count; i++) {
    Outputs outputs = model_run(model, MAIN, inputs[i]);
    print_outputs(bundle, outputs.arrays, texts[i].line, texts[i].count, options->json, options->raw);
    outputs_release(model, &outputs);
    if (options->repeat > 0) time_text(model, inputs[i], texts[i].line, options);
    inputs_release(bundle, MAIN, inputs[i]);
  }
  free(inputs);
}

static void run_tensors(const Bundle *bundle, Model *model, const Options *options) {
  TensorReader reader = open_tensors(options->tensors, bundle);
  Session session = {.bundle = bundle, .model = model};
  size_t length = strlen(options->out) + sizeof ".partial";
  char *partial = allocate(length, 1);
  snprintf(partial, length, "%s.partial", options->out);
  FILE *out = fopen(partial, "wb");
  if (out == NULL) fail(EXIT_USAGE, "cannot write %s: %s", partial, strerror(errno));
  write_tensors_header(out, reader.sets);
  for (uint32_t set = 0; set < reader.sets; set++) {
    FunctionName name = MAIN;
    Array *inputs = next_inputs(&reader, &name);
    check_inputs(bundle, name, inputs, options->tensors);
    Outputs outputs = run_set(&session, name, inputs);
    write_tensors(out, bundle, name, outputs.arrays);
    outputs_release(model, &outputs);
    inputs_release(bundle, name, inputs);
  }
  close_tensors(&reader);
  /* The file appears under its name only when it is whole. */
  if (fclose(out) != 0 || rename(partial, options->out) != 0) {
    fail(EXIT_FAULT, "cannot write %s: %s", options->out, strerror(errno));
  }
  free(partial);
}

/* Sets before the last one fill the caches that it reads. */
static void run_profile(const Bundle *bundle, Model *model, const Options *options) {
  TensorReader reader = open_tensors(options->profile, bundle);
  Session session = {.bundle = bundle, .model = model};
  if (reader.sets == 0) fail(EXIT_USAGE, "%s holds no set of inputs", options->profile);
  for (uint32_t set = 0; set < reader.sets; set++) {
    FunctionName name = MAIN;
    Array *inputs = next_inputs(&reader, &name);
    check_inputs(bundle, name, inputs, options->profile);
    if (set + 1 == reader.sets) {
      close_tensors(&reader);
      use_state_for(&session, inputs);
      profile_set(model, name, inputs, options->repeat);
    } else {
      Outputs outputs = run_set(&session, name, inputs);
      outputs_release(model, &outputs);
    }
    inputs_release(bundle, name, inputs);
  }
}

static void check_task(const Bundle *bundle, const Options *options) {
  if (options->generate && bundle->generation.context == 0) {
    fail(EXIT_USAGE, "the bundle makes no text: it is for '%s'; leave --generate out", bundle->task);
  }
  if (has_texts(options) && !options->tokens && !options->generate && bundle->generation.context > 0) {
    fail(EXIT_USAGE, "the bundle makes texts: say of how many tokens, with --generate N");
  }
}

static int finish(void) {
  if (fflush(stdout) != 0) fail(EXIT_FAULT, "cannot write to standard output: %s", strerror(errno));
  return 0;
}

int main(int count, char **arguments) {
  Options options = read_options(count, arguments);
  Bundle bundle;
  bundle_open(&bundle, options.bundle, options.no_verify ? NO_DIGESTS : (int)options.threads);
  check_task(&bundle, &options);
  Texts texts = read_texts(&bundle, &options);
  if (options.tokens) {
    bundle_check_weights(&bundle);
    print_texts(&texts, options.json);
    return finish();
  }
  char *libraries = bundle_file(&bundle, "lib");
  Model *model = model_open(&bundle, options.libraries != NULL ? options.libraries : libraries, (int)options.threads);
  /* Code was checked before it was loaded; while it was, other cores went on with the weights. */
  bundle_check_weights(&bundle);
  if (options.self_test) {
    self_test(&bundle, model, options.json);
  } else if (options.generate) {
    generate_texts(&bundle, model, &texts, &options);
  } else if (has_texts(&options)) {
    run_texts(&bundle, model, &texts, &options);
  } else if (options.profile != NULL) {
    run_profile(&bundle, model, &options);
  } else {
    run_tensors(&bundle, model, &options);
  }
  return finish();
}
