/* edgeq-run: runs a bundle on the board it was compiled for. Needs only the C library and the two TVM runtime
 * libraries in the bundle. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bundle.h"
#include "fail.h"
#include "inputs.h"
#include "model.h"
#include "output.h"

static const char USAGE[] =
    "usage: edgeq-run BUNDLE --self-test | --ids FILE | --tensors IN --out OUT\n"
    "\n"
    "  BUNDLE           folder that holds manifest.json, model.so, weights.bin and lib/\n"
    "  --self-test      run the stored input; exit 1 if one bit of the output differs\n"
    "  --ids FILE       one text a line, as token ids separated by spaces\n"
    "  --tensors IN     sets of inputs as `edgeq` writes them; outputs go to --out\n"
    "  --out OUT\n"
    "  --json           print JSON lines\n"
    "  --raw            print the model's outputs as they are, not an embedding or a label\n"
    "  --repeat N       after one run to warm up, time N runs of every text\n"
    "  --threads N      threads of the kernels (default: every core); results do not depend on it\n"
    "  --libraries DIR  where libtvm_ffi.so and libtvm_runtime.so are (default: BUNDLE/lib)\n"
    "  --no-verify      skip the SHA-256 of the files\n"
    "\n"
    "example: edgeq-run . --ids ids.txt --json --threads 4\n";

typedef struct {
  const char *bundle, *ids, *tensors, *out, *libraries;
  bool self_test, json, raw, verify;
  int repeat, threads;
} Options;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int positive(const char *option, const char *value, int most) {
  char *end = NULL;
  errno = 0;
  long number = strtol(value, &end, 10);
  if (errno != 0 || end == value || *end != '\0' || number < 1 || number > most) {
    fail(EXIT_USAGE, "%s takes a number in 1..%d, found '%s'", option, most, value);
  }
  return (int)number;
}

static Options read_options(int count, char **arguments) {
  Options options = {.verify = true};
  for (int i = 1; i < count; i++) {
    const char *name = arguments[i];
    const char *value = i + 1 < count ? arguments[i + 1] : NULL;
    const char **text = strcmp(name, "--ids") == 0         ? &options.ids
                        : strcmp(name, "--tensors") == 0   ? &options.tensors
                        : strcmp(name, "--out") == 0       ? &options.out
                        : strcmp(name, "--libraries") == 0 ? &options.libraries
                                                           : NULL;
    bool *flag = strcmp(name, "--self-test") == 0 ? &options.self_test
                 : strcmp(name, "--json") == 0    ? &options.json
                 : strcmp(name, "--raw") == 0     ? &options.raw
                                                  : NULL;
    bool counted = strcmp(name, "--repeat") == 0 || strcmp(name, "--threads") == 0;
    if ((text != NULL || counted) && value == NULL) fail(EXIT_USAGE, "%s needs a value; see --help", name);
    if (text != NULL) {
      *text = value;
      i++;
    } else if (flag != NULL) {
      *flag = true;
    } else if (counted && name[2] == 'r') {
      options.repeat = positive(name, value, 1000000);
      i++;
    } else if (counted) {
      options.threads = positive(name, value, 1024);
      i++;
    } else if (strcmp(name, "--no-verify") == 0) {
      options.verify = false;
    } else if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
      fputs(USAGE, stdout);
      exit(0);
    } else if (name[0] == '-' || options.bundle != NULL) {
      fail(EXIT_USAGE, "unexpected argument '%s'; see --help", name);
    } else {
      options.bundle = name;
    }
  }
  return options;
}

static void check_options(const Options *options) {
  int jobs = options->self_test + (options->ids != NULL) + (options->tensors != NULL);
  if (options->bundle == NULL) fail(EXIT_USAGE, "name a bundle; see --help");
  if (jobs != 1) fail(EXIT_USAGE, "give one of --self-test, --ids and --tensors; see --help");
  if ((options->tensors != NULL) != (options->out != NULL)) {
    fail(EXIT_USAGE, "--tensors and --out belong together; see --help");
  }
  if (options->repeat > 0 && options->ids == NULL) fail(EXIT_USAGE, "--repeat needs --ids; see --help");
}

static void self_test(const Bundle *bundle, Model *model, bool json) {
  check_inputs(bundle, bundle->golden_inputs, "golden.bin");
  Outputs outputs = model_run(model, bundle->golden_inputs);
  size_t values = 0, differing = 0;
  for (size_t i = 0; i < bundle->output_count; i++) {
    const Array *found = &outputs.arrays[i], *wanted = &bundle->golden_outputs[i];
    size_t size = wanted->type->bits / 8u;
    if (memcmp(found->shape, wanted->shape, (size_t)wanted->dimensions * sizeof *wanted->shape) != 0) {
      fail(EXIT_FAULT, "self-test failed: output '%s' has another shape than the golden one",
           bundle->outputs[i].name);
    }
    for (size_t at = 0; at < wanted->bytes; at += size) {
      values++;
      differing += memcmp((const char *)found->data + at, (const char *)wanted->data + at, size) != 0;
    }
  }
  outputs_release(model, &outputs);
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
    Outputs outputs = model_run(model, inputs);
    seconds[i] = now() - start;
    outputs_release(model, &outputs);
  }
  print_times(seconds, count, line, options->json);
  free(seconds);
}

static void run_texts(const Bundle *bundle, Model *model, const Options *options) {
  size_t count = 0;
  Text *texts = read_texts(options->ids, &count);
  Array **inputs = allocate(count, sizeof *inputs);
  /* Every text is checked before the first is run: a mistake in the last line costs no time. */
  for (size_t i = 0; i < count; i++) {
    char where[64];
    snprintf(where, sizeof where, "line %zu of the ids", texts[i].line);
    inputs[i] = inputs_from_text(bundle, &texts[i]);
    check_inputs(bundle, inputs[i], where);
  }
  for (size_t i = 0; i < count; i++) {
    Outputs outputs = model_run(model, inputs[i]);
    print_outputs(bundle, outputs.arrays, texts[i].line, texts[i].count, options->json, options->raw);
    outputs_release(model, &outputs);
    if (options->repeat > 0) time_text(model, inputs[i], texts[i].line, options);
    inputs_release(bundle, inputs[i]);
  }
  free(inputs);
}

static void run_tensors(const Bundle *bundle, Model *model, const Options *options) {
  TensorReader reader = open_tensors(options->tensors);
  size_t length = strlen(options->out) + sizeof ".partial";
  char *partial = allocate(length, 1);
  snprintf(partial, length, "%s.partial", options->out);
  FILE *out = fopen(partial, "wb");
  if (out == NULL) fail(EXIT_USAGE, "cannot write %s: %s", partial, strerror(errno));
  write_tensors_header(out, reader.sets);
  for (uint32_t set = 0; set < reader.sets; set++) {
    Array *inputs = next_inputs(&reader, bundle);
    check_inputs(bundle, inputs, options->tensors);
    Outputs outputs = model_run(model, inputs);
    write_tensors(out, outputs.arrays, bundle->output_count);
    outputs_release(model, &outputs);
    inputs_release(bundle, inputs);
  }
  close_tensors(&reader);
  /* The file appears under its name only when it is whole. */
  if (fclose(out) != 0 || rename(partial, options->out) != 0) {
    fail(EXIT_FAULT, "cannot write %s: %s", options->out, strerror(errno));
  }
  free(partial);
}

int main(int count, char **arguments) {
  Options options = read_options(count, arguments);
  Bundle bundle;
  check_options(&options);
  bundle_open(&bundle, options.bundle, options.verify);
  char *libraries = bundle_file(&bundle, "lib");
  Model *model = model_open(&bundle, options.libraries != NULL ? options.libraries : libraries, options.threads);
  if (options.self_test) {
    self_test(&bundle, model, options.json);
  } else if (options.ids != NULL) {
    run_texts(&bundle, model, &options);
  } else {
    run_tensors(&bundle, model, &options);
  }
  if (fflush(stdout) != 0) fail(EXIT_FAULT, "cannot write to standard output: %s", strerror(errno));
  return 0;
}
