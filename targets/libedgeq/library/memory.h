/* Memory of a handle or of a call, and what happens when something fails.
 *
 * Everything that is taken from a Memory is known to it, so a failure may leave any number of functions at once: it
 * jumps to the function of the interface that was called, which gives back what its call took. Nothing else may leave
 * behind what only a local variable knows. */
#ifndef EDGEQ_MEMORY_H
#define EDGEQ_MEMORY_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>

/* First, for the fields of edgeq_allocator too. */
#include "names.h"

#include "edgeq.h"

enum { SENTENCE_SIZE = 1024 };

/* Where failures of a handle go. */
typedef struct {
  jmp_buf target;
  edgeq_status status;
  char sentence[SENTENCE_SIZE];
} Failure;

typedef struct Block Block;

typedef struct {
  edgeq_allocator allocator;
  Failure *failure;
  Block *newest;
  bool reuses;        /* what is given back is kept for what is taken next */
  Block *spare;       /* that */
  size_t spare_bytes;
} Memory;

/* malloc's family. */
extern const edgeq_allocator DEFAULT_ALLOCATOR;

/* Runs `body`; returns EDGEQ_OK, or the status with which it failed. The sentence is in `failure`. */
edgeq_status guarded(Failure *failure, void (*body)(void *argument), void *argument);

/* Ends what runs under guarded() with a status and a sentence, in which control characters and bytes that are no UTF-8 are
 * escaped: names in files reach terminals. */
_Noreturn void fail(const Memory *memory, edgeq_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Zeroed memory for `count` items of `size` bytes; fails if there is none. */
void *allocate(Memory *memory, size_t count, size_t size);

/* Like allocate, at an address that kernels may use: a multiple of EDGEQ_ALIGNMENT. */
void *allocate_data(Memory *memory, size_t bytes);

/* Like allocate_data; `cleanup` is called with the memory before it is given back. */
void *allocate_with(Memory *memory, size_t size, void (*cleanup)(void *));

/* A larger block with what was in `old` (of `used` bytes, may be NULL), which is given back. */
void *reallocate(Memory *memory, void *old, size_t used, size_t size);

/* Gives back one block (NULL is allowed), or all, the newest first. */
void release(Memory *memory, void *block);
void release_all(Memory *memory);

/* Gives back what is kept to be taken again. */
void release_spare(Memory *memory);

char *copy_text(Memory *memory, const char *text);

#endif
