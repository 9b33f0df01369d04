/* A text that is being changed, and for each of its bytes where it comes from, as the package tokenizers counts it. */
#ifndef EDGEQ_TRACED_H
#define EDGEQ_TRACED_H

#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"

/* Bytes of the text as it was given. */
typedef struct {
  uint32_t start, end;
} Place;

typedef struct {
  Buffer text;
  Buffer places;  /* a Place for each byte; nothing if nobody asks for them */
  bool is_traced;
  bool begins; /* at the beginning of the text as it was given */
} Traced;

/* An empty text, which is traced if `like` is. */
Traced traced_like(const Traced *like);

/* A text as it is given: each byte comes from its character. */
Traced traced_text(Memory *memory, const char *text, size_t size, bool is_traced);

/* Appends bytes that all come from the same place. */
void traced_add(Traced *to, const char *bytes, size_t size, Place place);

/* Appends bytes of another text, which come from where they came from. */
void traced_copy(Traced *to, const Traced *from, size_t start, size_t end);

/* Where a byte comes from; nowhere if the text is not traced. */
Place place_of(const Traced *text, size_t at);

/* The places of all bytes, NULL if the text is not traced. */
const Place *places_of(const Traced *text);

void traced_release(Traced *text);

#endif
