#include "output.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "number_text.h"
#include "stop.h"

char *json_text_of(const char *text, size_t size) {
  static const char digits[] = "0123456789abcdef";
  char *json = reserve(6 * size + 3, 1);
  size_t used = 0;
  json[used++] = '"';
  for (size_t i = 0; i < size; i++) {
    unsigned char byte = (unsigned char)text[i], code = byte;
    bool is_control = byte < 0x20 || byte == 0x7F;
    if (byte == 0xC2 && i + 1 < size && (unsigned char)text[i + 1] < 0xA0) { /* U+0080 to U+009F */
      is_control = true;
      code = (unsigned char)text[++i];
    }
    if (byte == '"' || byte == '\\') json[used++] = '\\';
    if (is_control) {
      const char escape[6] = {'\\', 'u', '0', '0', digits[code >> 4], digits[code & 15]};
      memcpy(json + used, escape, sizeof escape);
      used += sizeof escape;
    } else {
      json[used++] = (char)byte;
    }
  }
  json[used++] = '"';
  return json;
}

void print_json_text(const char *text, size_t size) {
  char *json = json_text_of(text, size);
  fputs(json, stdout);
  free(json);
}

void print_number(double value, bool json) {
  /* JSON has no infinities. */
  if (json && !isfinite(value)) {
    fputs("null", stdout);
  } else {
    char text[NUMBER_SIZE];
    fwrite(text, 1, number_text(value, text), stdout);
  }
}

void print_double(double value, bool json) {
  if (json && !isfinite(value)) {
    fputs("null", stdout);
  } else {
    printf("%.17g", value);
  }
}

void print_values(const float *values, size_t count, bool json) {
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

void print_raw_result(const edgeq_model *model, edgeq_session *session, const Text *text, bool json) {
  edgeq_tensor *outputs = reserve(edgeq_output_count(model, EDGEQ_MAIN), sizeof *outputs);
  run_ids(model, session, text, outputs);
  if (json) printf("{\"line\": %zu, \"tokens\": %zu", text->line, text->count);
  print_raw(model, outputs, json);
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
