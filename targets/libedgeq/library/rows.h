/* Rows of tokens through the model, those of about the same length together. */
#ifndef EDGEQ_ROWS_H
#define EDGEQ_ROWS_H

#include "reading.h"

/* A row with the text that it is of. */
typedef struct {
  Row row;
  size_t text, number; /* of the text, and of the row among those of the text */
} TextRow;

/* Texts of a call, read. */
typedef struct {
  TextReader reader;
  Rows *texts;   /* as many as the call has */
  TextRow *rows; /* of all texts, in their order */
  size_t text_count, row_count;
} Batch;

/* What is done with the model's outputs for a row, which is number `place` of those that ran together. */
typedef void (*RowUse)(void *context, const TextRow *row, const edgeq_tensor *outputs, size_t place);

/* Reads and checks all texts of a call; `readings` may be NULL. */
Batch read_batch(Memory *memory, const TextReader *reader, const edgeq_text *texts, size_t count, edgeq_reading *readings);

/* Runs all rows; which run together changes no bit. */
void run_batch(edgeq_session *session, const Batch *batch, RowUse use, void *context);

/* Number of an output, by its name or else the first one of this rank; as many as there are if there is none. All are
 * float32. */
size_t output_named(const Interface *main, const char *name, int rank);

/* The numbers of a row in an output [rows, tokens, width] or [rows, width]. */
const float *row_values(const edgeq_tensor *output, size_t place);

#endif
