/* A text that is changed from the left to the right, a character at a time. */
#ifndef EDGEQ_CHANGES_H
#define EDGEQ_CHANGES_H

#include "traced.h"

/* Counts places as the package tokenizers does: a character stands for one of the text (`change` 0), for one and as many
 * after it as `change` is below 0, or for none (1), and then comes from where the one before it ended. The newest is held,
 * since what is left out is counted to it. */
typedef struct {
  const Traced *text;
  Traced *out;
  size_t at; /* the next character of the text */
  char held[4];
  size_t held_size;
  int64_t change;
} Changes;

void changes_put(Changes *changes, const char *character, size_t size, int64_t change);

/* Counts characters that are left out to the newest one; if there is none, to no one. */
void changes_leave_out(Changes *changes, size_t count);

/* Writes the newest character. */
void changes_flush(Changes *changes);

#endif
