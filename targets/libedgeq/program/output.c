#include "output.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "number_text.h"
#include "stop.h"

void print_json_text(const char *text, size_t size) {
  putchar('"');
  for (size_t i = 0; i < size; i++) {
    unsigned char byte = (unsigned char)text[i];
    if (byte == '"' || byte == '\\') {
      printf("\\%c", byte);
    } else if (byte < 0x20) {
      printf("\\u%04x", byte);
    } else {
      putchar(byte);
    }
  }
  putchar('"');
}

static void print_number(double value, bool json) {
  /* Nine digits give every float32 back exactly. JSON has no infinities. */
  if (json && !isfinite(value)) {
    fputs("null", stdout);
  } else {
    char text[NUMBER_SIZE];
    fwrite(text, 1, number_text(value, text), stdout);
  }
}

static void print_values(const float *values, size_t count, bool json) {
  if (json) putchar('[');
  for (size_t i = 0; i < count; i++) {
    if (i > 0) fputs(json ? ", " : " ", stdout);
    print_number(values[i], json);
  }
  if (json) putchar(']');
}

void run_ids(const edgeq_model *model, edgeq_session *session, const Text *text, edgeq_tensor *outputs) {
  size_t count = edgeq_input_count(model, EDGEQ_MAIN);
  edgeq_tensor *inputs = reserve(count, sizeof *inputs);
  for (size_t i = 0; i < count; i++) {
    bool is_ids = strcmp(edgeq_input_info(model, EDGEQ_MAIN, i)->name, "input_ids") == 0;
    inputs[i] = (edgeq_tensor){.type = EDGEQ_INT64, .rank = 2, .shape = {1, (int64_t)text->count}};
    inputs[i].data = is_ids ? text->ids : NULL;
  }
  check(edgeq_run(session, EDGEQ_MAIN, inputs, outputs), session);
  free(inputs);
}

static void print_embedding(const edgeq_model *model, edgeq_session *session, const edgeq_text *text, bool json) {
  size_t width = (size_t)edgeq_model_info(model)->width;
  float *values = reserve(width, sizeof *values);
  check(edgeq_embed(session, text, 1, 1, values, NULL), session);
  if (json) fputs(", \"embedding\": ", stdout);
  print_values(values, width, json);
  free(values);
}

static void print_label(const edgeq_model *model, edgeq_session *session, const edgeq_text *text, bool json) {
  const edgeq_info *info = edgeq_model_info(model);
  size_t classes = (size_t)info->width, best = 0;
  float *logits = reserve(classes, sizeof *logits);
  double *scores = reserve(classes, sizeof *scores);
  check(edgeq_classify(session, text, 1, 1, logits, scores, NULL), session);
  for (size_t k = 0; k < classes; k++) best = logits[k] > logits[best] ? k : best;
  char number[32];
  snprintf(number, sizeof number, "LABEL_%zu", best);
  const char *label = best < info->label_count ? info->labels[best] : number;
  if (json) {
    fputs(", \"label\": ", stdout);
    print_json_text(label, strlen(label));
    fputs(", \"score\": ", stdout);
    print_number(scores[best], json);
    fputs(", \"logits\": ", stdout);
  } else {
    printf("%s %.6f ", label, scores[best]);
  }
  print_values(logits, classes, json);
  free(logits);
  free(scores);
}

static void print_raw(const edgeq_model *model, const edgeq_tensor *outputs, bool json) {
  if (json) fputs(", \"outputs\": {", stdout);
  for (size_t i = 0; i < edgeq_output_count(model, EDGEQ_MAIN); i++) {
    const edgeq_tensor *output = &outputs[i];
    const char *name = edgeq_output_info(model, EDGEQ_MAIN, i)->name;
    if (output->type != EDGEQ_FLOAT32) stop(EXIT_FAULT, "output '%s' is not float32; use --tensors", name);
    if (i > 0) fputs(json ? ", " : " ", stdout);
    if (json) print_json_text(name, strlen(name));
    fputs(json ? ": {\"shape\": [" : "[", stdout);
    for (int at = 0; at < output->rank; at++) {
      printf(at > 0 ? ", %lld" : "%lld", (long long)output->shape[at]);
    }
    fputs(json ? "], \"values\": " : "] ", stdout);
    print_values(output->data, output->bytes / sizeof(float), json);
    if (json) putchar('}');
  }
  if (json) putchar('}');
}

void print_result(const edgeq_model *model, edgeq_session *session, const Text *text, bool json, bool raw) {
  const edgeq_text given = {.ids = text->ids, .id_count = text->count, .name = text->name};
  edgeq_tensor *outputs = reserve(edgeq_output_count(model, EDGEQ_MAIN), sizeof *outputs);
  if (raw) run_ids(model, session, text, outputs);
  if (json) printf("{\"line\": %zu, \"tokens\": %zu", text->line, text->count);
  if (raw) {
    print_raw(model, outputs, json);
  } else if (strcmp(edgeq_model_info(model)->task, "classify") == 0) {
    print_label(model, session, &given, json);
  } else {
    print_embedding(model, session, &given, json);
  }
  puts(json ? "}" : "");
  free(outputs);
}

static int by_size(const void *left, const void *right) {
  double a = *(const double *)left, b = *(const double *)right;
  return (a > b) - (a < b);
}

void print_times(double *seconds, size_t count, size_t line, bool json) {
  qsort(seconds, count, sizeof *seconds, by_size);
  double median = count % 2 == 1 ? seconds[count / 2] : (seconds[count / 2 - 1] + seconds[count / 2]) / 2;
  size_t rank = (count * 95 + 99) / 100; /* nearest rank */
  double p95 = seconds[rank > 0 ? rank - 1 : 0];
  if (json) {
    printf("{\"line\": %zu, \"runs\": %zu, \"median_ms\": %.4f, \"p95_ms\": %.4f}\n", line, count, median * 1e3,
           p95 * 1e3);
  } else {
    fprintf(stderr, "line %zu: %zu runs, median %.3f ms, 95th percentile %.3f ms\n", line, count, median * 1e3,
            p95 * 1e3);
  }
}
