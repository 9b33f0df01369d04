#include "output.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"

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
    printf("%.9g", value);
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

static const Array *float_output(const Bundle *bundle, const Array *outputs, int least_dimensions) {
  for (size_t i = 0; i < bundle->functions[MAIN].output_count; i++) {
    const Array *output = &outputs[i];
    if (strcmp(output->type->name, "float32") == 0 && output->dimensions >= least_dimensions &&
        output->dimensions <= 3 && output->shape[0] == 1) {
      return output;
    }
  }
  fail(EXIT_FAULT, "the model has no float32 output that can be shown; use --tensors");
}

/* Token vectors [1, tokens, width] to one vector [width]; every token counts, since nothing is padded. */
static float *pool(const Bundle *bundle, const Array *output, size_t *width) {
  const float *data = output->data;
  size_t tokens = output->dimensions == 3 ? (size_t)output->shape[1] : 1;
  *width = (size_t)output->shape[output->dimensions - 1];
  float *pooled = allocate(*width, sizeof *pooled);
  double squares = 0;
  for (size_t k = 0; k < *width; k++) {
    double sum = 0;
    float largest = data[k];
    for (size_t t = 0; t < tokens; t++) {
      float value = data[t * *width + k];
      sum += value;
      if (value > largest) largest = value;
    }
    pooled[k] = data[k];
    if (strcmp(bundle->pooling, "mean") == 0) pooled[k] = (float)(sum / (double)tokens);
    if (strcmp(bundle->pooling, "max") == 0) pooled[k] = largest;
    squares += (double)pooled[k] * pooled[k];
  }
  double norm = sqrt(squares) > 1e-12 ? sqrt(squares) : 1e-12;
  for (size_t k = 0; bundle->normalize && k < *width; k++) pooled[k] = (float)(pooled[k] / norm);
  return pooled;
}

static void print_embedding(const Bundle *bundle, const Array *outputs, bool json) {
  size_t width = 0;
  float *pooled = pool(bundle, float_output(bundle, outputs, 2), &width);
  if (json) fputs(", \"embedding\": ", stdout);
  print_values(pooled, width, json);
  free(pooled);
}

static void print_label(const Bundle *bundle, const Array *outputs, bool json) {
  const Array *output = float_output(bundle, outputs, 2);
  const float *logits = output->data;
  size_t classes = (size_t)output->shape[output->dimensions - 1], best = 0;
  double total = 0;
  if (output->dimensions != 2) fail(EXIT_FAULT, "the logits of a classifier have two dimensions");
  for (size_t k = 0; k < classes; k++) best = logits[k] > logits[best] ? k : best;
  for (size_t k = 0; k < classes; k++) total += exp((double)logits[k] - logits[best]);
  char number[32];
  snprintf(number, sizeof number, "LABEL_%zu", best);
  const char *label = best < bundle->label_count ? bundle->labels[best] : number;
  if (json) {
    fputs(", \"label\": ", stdout);
    print_json_text(label, strlen(label));
    fputs(", \"score\": ", stdout);
    print_number(1 / total, json);
    fputs(", \"logits\": ", stdout);
  } else {
    printf("%s %.6f ", label, 1 / total);
  }
  print_values(logits, classes, json);
}

static void print_raw(const Bundle *bundle, const Array *outputs, bool json) {
  if (json) fputs(", \"outputs\": {", stdout);
  for (size_t i = 0; i < bundle->functions[MAIN].output_count; i++) {
    const Array *output = &outputs[i];
    if (strcmp(output->type->name, "float32") != 0) {
      fail(EXIT_FAULT, "output '%s' is %s, only float32 is printed; use --tensors", bundle->functions[MAIN].outputs[i].name,
           output->type->name);
    }
    if (i > 0) fputs(json ? ", " : " ", stdout);
    const char *name = bundle->functions[MAIN].outputs[i].name;
    if (json) print_json_text(name, strlen(name));
    fputs(json ? ": {\"shape\": [" : "[", stdout);
    for (int at = 0; at < output->dimensions; at++) {
      printf(at > 0 ? ", %lld" : "%lld", (long long)output->shape[at]);
    }
    fputs(json ? "], \"values\": " : "] ", stdout);
    print_values(output->data, output->bytes / sizeof(float), json);
    if (json) putchar('}');
  }
  if (json) putchar('}');
}

void print_outputs(const Bundle *bundle, const Array *outputs, size_t line, size_t tokens, bool json, bool raw) {
  if (json) printf("{\"line\": %zu, \"tokens\": %zu", line, tokens);
  if (raw) {
    print_raw(bundle, outputs, json);
  } else if (strcmp(bundle->task, "classify") == 0) {
    print_label(bundle, outputs, json);
  } else {
    print_embedding(bundle, outputs, json);
  }
  puts(json ? "}" : "");
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
