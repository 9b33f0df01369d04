#include "digests.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "source.h"

typedef struct {
  const Piece *pieces;
  size_t count;
  atomic_size_t next; /* of the pieces that nobody has taken */
  atomic_size_t first_damaged;
} Digests;

static void report(Digests *digests, size_t piece) {
  size_t first = atomic_load(&digests->first_damaged);
  while (piece < first && !atomic_compare_exchange_weak(&digests->first_damaged, &first, piece)) {
  }
}

/* Checking must not take more memory than running. Neighbours are forgotten together: every call interrupts the other
 * cores. */
static void forget(const Piece *pieces, size_t count) {
  for (size_t i = 0; i < count;) {
    Mapping run = {pieces[i].message.data, 0};
    bool forgotten = pieces[i].forget != 0;
    for (; i < count && (const char *)pieces[i].message.data == run.data + run.size; i++) {
      run.size += pieces[i].message.length;
    }
    if (forgotten) forget_pages(run);
  }
}

/* Takes some pieces at a time until there are none. */
static void *compare(void *argument) {
  Digests *digests = argument;
  for (size_t at; (at = atomic_fetch_add(&digests->next, SHA256_TOGETHER)) < digests->count;) {
    const Piece *pieces = digests->pieces + at;
    size_t taken = digests->count - at < SHA256_TOGETHER ? digests->count - at : SHA256_TOGETHER;
    Message messages[SHA256_TOGETHER];
    char found[SHA256_TOGETHER][SHA256_HEX];
    for (size_t i = 0; i < taken; i++) messages[i] = pieces[i].message;
    sha256_hex(messages, taken, found);
    for (size_t i = 0; i < taken; i++) {
      if (strcmp(found[i], pieces[i].expected) != 0) report(digests, at + i);
    }
    forget(pieces, taken);
  }
  return NULL;
}

const char *compare_digests(Memory *memory, const Piece *pieces, size_t count, int threads) {
  Digests digests = {.pieces = pieces, .count = count};
  atomic_init(&digests.next, 0);
  atomic_init(&digests.first_damaged, count);
  size_t most = (count + SHA256_TOGETHER - 1) / SHA256_TOGETHER, started = 0;
  size_t others = (size_t)(threads > 0 ? threads : available_cores()) - 1;
  if (others > most) others = most;
  Thread *helpers = allocate(memory, others, sizeof *helpers);
  /* A system that gives no more threads only makes it slower. Nothing fails between here and the last join. */
  while (started < others && thread_start(&helpers[started], compare, &digests)) started++;
  compare(&digests);
  for (size_t i = 0; i < started; i++) thread_join(&helpers[i]);
  release(memory, helpers);
  size_t first = atomic_load(&digests.first_damaged);
  return first < count ? pieces[first].name : NULL;
}
