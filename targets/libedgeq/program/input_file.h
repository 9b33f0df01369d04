/* A file that a user names, read whole. */
#ifndef EDGEQ_INPUT_FILE_H
#define EDGEQ_INPUT_FILE_H

#include <stddef.h>

typedef struct {
  char *data; /* followed by an end mark */
  size_t size;
} InputFile;

/* Stops the program if it is no regular file that can be read. */
InputFile read_file(const char *path);

/* The same for a text, without the mark that some editors put first; "-" is standard input. */
InputFile read_text_file(const char *path);

#endif
