/* What a user sees of a run: an embedding or a label for each text, as text or as JSON lines. */
#ifndef EDGEQ_OUTPUT_H
#define EDGEQ_OUTPUT_H

#include <stdbool.h>

#include "edgeq.h"
#include "texts.h"

/* Runs a text and prints one line for it. With `raw`, every output of the model as it is. */
void print_result(const edgeq_model *model, edgeq_session *session, const Text *text, bool json, bool raw);

/* Runs the model on a text's token ids. */
void run_ids(const edgeq_model *model, edgeq_session *session, const Text *text, edgeq_tensor *outputs);

/* Prints a text in quotes, as JSON wants it. */
void print_json_text(const char *text, size_t size);

/* Prints the median and the 95th percentile of `count` times in seconds (sorts them). */
void print_times(double *seconds, size_t count, size_t line, bool json);

#endif
