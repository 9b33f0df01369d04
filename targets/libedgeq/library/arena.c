#include "arena.h"

#include <stdbool.h>
#include <stdlib.h>

static size_t rounded(size_t bytes) { return (bytes + EDGEQ_ALIGNMENT - 1) / EDGEQ_ALIGNMENT * EDGEQ_ALIGNMENT; }

/* The largest first; of equal ones that which stands first. */
static int by_size(const void *left, const void *right) {
  const Place *a = *(Place *const *)left, *b = *(Place *const *)right;
  if (a->bytes != b->bytes) return a->bytes < b->bytes ? 1 : -1;
  return a < b ? -1 : 1;
}

static bool overlap(const Place *a, const Place *b) { return a->first <= b->last && b->first <= a->last; }

size_t place_tensors(Memory *memory, Place *places, size_t count) {
  Place **order = allocate(memory, count, sizeof *order), **placed = allocate(memory, count, sizeof *placed);
  size_t wanted = 0, done = 0, whole = 0;
  for (size_t i = 0; i < count; i++) {
    if (places[i].bytes > 0) order[wanted++] = &places[i];
  }
  qsort(order, wanted, sizeof *order, by_size);
  for (size_t i = 0; i < wanted; i++) {
    Place *place = order[i];
    size_t at = done, offset = 0;
    /* `placed` is sorted by offset. */
    for (size_t k = 0; k < done; k++) {
      if (!overlap(place, placed[k])) continue;
      if (placed[k]->offset >= offset && placed[k]->offset - offset >= place->bytes) break;
      size_t end = placed[k]->offset + rounded(placed[k]->bytes);
      offset = end > offset ? end : offset;
    }
    if (place->bytes > PTRDIFF_MAX / 2 || offset > PTRDIFF_MAX / 2 - place->bytes) {
      fail(memory, EDGEQ_NO_MEMORY, "the tensors of this call do not fit memory");
    }
    place->offset = offset;
    whole = offset + rounded(place->bytes) > whole ? offset + rounded(place->bytes) : whole;
    for (; at > 0 && placed[at - 1]->offset > offset; at--) placed[at] = placed[at - 1];
    placed[at] = place;
    done++;
  }
  release(memory, order);
  release(memory, placed);
  return whole;
}
