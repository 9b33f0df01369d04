/* Numbers, texts and tensors as a user sees them. */
#ifndef EDGEQ_OUTPUT_H
#define EDGEQ_OUTPUT_H

#include <stdbool.h>

#include "edgeq.h"
#include "texts.h"

/* Runs a text's ids and prints one line with every output of the model as it is. */
void print_raw_result(const edgeq_model *model, edgeq_session *session, const Text *text, bool json);

/* Runs the model on a text's token ids. */
void run_ids(const edgeq_model *model, edgeq_session *session, const Text *text, edgeq_tensor *outputs);

/* A text in quotes, as JSON wants it, with an end mark; what a terminal would obey is escaped. */
char *json_text_of(const char *text, size_t size);

/* Prints it. */
void print_json_text(const char *text, size_t size);

/* Prints a number with the digits that give every float32 back, or every double; as null where JSON has no such number. */
void print_number(double value, bool json);
void print_double(double value, bool json);

/* Prints numbers, with `json` as a list. */
void print_values(const float *values, size_t count, bool json);

/* Prints the median and the 95th percentile of `count` times in seconds (sorts them). */
void print_times(double *seconds, size_t count, size_t line, bool json);

#endif
