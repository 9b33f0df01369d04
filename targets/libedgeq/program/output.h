/* What a user sees of a run: an embedding or a label for each text, as text or as JSON lines. */
#ifndef EDGEQ_OUTPUT_H
#define EDGEQ_OUTPUT_H

#include "bundle.h"

/* Prints one line for the outputs of a batch of one text. With `raw`, every output as it is. */
void print_outputs(const Bundle *bundle, const Array *outputs, size_t line, size_t tokens, bool json, bool raw);

/* Prints a text in quotes, as JSON wants it. */
void print_json_text(const char *text, size_t size);

/* Prints the median and the 95th percentile of `count` times in seconds (sorts them). */
void print_times(double *seconds, size_t count, size_t line, bool json);

#endif
