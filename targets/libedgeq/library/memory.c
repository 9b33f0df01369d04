#include "memory.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform.h"
#include "utf8.h"

/* Lies right before what the caller gets. */
struct Block {
  Block *next;
  Block **link; /* what points to this block */
  void (*cleanup)(void *);
  void *start; /* what the allocator returned */
  size_t bytes; /* of it */
};

enum { LEAST_ALIGNMENT = 16, MOST_LOOKS = 64 };

/* Before each block of the default allocator: the bytes of its pages, 0 if it is one of calloc's. Not every C library's
 * calloc knows that new pages hold zeros already; writing them again doubles the time that large blocks take. */
typedef union {
  size_t pages;
  max_align_t alignment;
} Head;

enum { LARGE = 1 << 16 };

static void *allocate_zeroed(void *context, size_t bytes) {
  (void)context;
  if (bytes > SIZE_MAX - sizeof(Head)) return NULL;
  size_t whole = bytes + sizeof(Head);
  Head *head = whole >= LARGE ? (Head *)(void *)new_pages(whole) : calloc(1, whole);
  if (head == NULL) return NULL;
  head->pages = whole >= LARGE ? whole : 0;
  return head + 1;
}

static void release_zeroed(void *context, void *memory) {
  Head *head = (Head *)memory - 1;
  (void)context;
  if (head->pages > 0) {
    free_pages((char *)head, head->pages);
  } else {
    free(head);
  }
}

const edgeq_allocator DEFAULT_ALLOCATOR = {NULL, allocate_zeroed, release_zeroed};

edgeq_status guarded(Failure *failure, void (*body)(void *argument), void *argument) {
  if (setjmp(failure->target) != 0) return failure->status;
  body(argument);
  return EDGEQ_OK;
}

/* What is no printable text becomes \x and two digits; what does not fit is left out. */
static void escape(char *out, const char *text) {
  static const char digits[] = "0123456789abcdef";
  size_t left = strlen(text), used = 0;
  while (left > 0) {
    size_t size = character_size(text, left);
    unsigned char byte = (unsigned char)*text;
    /* U+0080 to U+009F are control characters too. */
    bool plain = size > 0 && byte >= 0x20 && byte != 0x7F && !(byte == 0xC2 && (unsigned char)text[1] < 0xA0);
    size_t wanted = plain ? size : 4;
    if (used + wanted >= SENTENCE_SIZE) break;
    if (plain) {
      memcpy(out + used, text, size);
    } else {
      const char code[4] = {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
      memcpy(out + used, code, sizeof code);
      size = 1;
    }
    used += wanted;
    text += size;
    left -= size;
  }
  out[used] = '\0';
}

_Noreturn void fail(const Memory *memory, edgeq_status status, const char *format, ...) {
  Failure *failure = memory->failure;
  char sentence[SENTENCE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(sentence, sizeof sentence, format, arguments);
  va_end(arguments);
  escape(failure->sentence, sentence);
  failure->status = status;
  longjmp(failure->target, 1);
}

/* A kept block of so many bytes, NULL if none is near. Those of the last call come in the order in which it took them, so
 * the same call finds each soon, and none of its blocks goes to something else. */
static char *take_spare(Memory *memory, size_t bytes) {
  Block **link = &memory->spare;
  for (int looks = 0; *link != NULL && looks < MOST_LOOKS; link = &(*link)->next, looks++) {
    Block *block = *link;
    if (block->bytes != bytes) continue;
    char *start = block->start;
    *link = block->next;
    memory->spare_bytes -= bytes;
    return memset(start, 0, bytes);
  }
  return NULL;
}

static void *take(Memory *memory, size_t size, size_t alignment, void (*cleanup)(void *)) {
  size_t extra = sizeof(Block) + alignment, bytes = size + extra;
  char *start = size > SIZE_MAX - extra ? NULL : take_spare(memory, bytes);
  if (start == NULL && size <= SIZE_MAX - extra) start = memory->allocator.allocate(memory->allocator.context, bytes);
  if (start == NULL) fail(memory, EDGEQ_NO_MEMORY, "out of memory (%zu bytes)", size);
  char *data = start + sizeof(Block);
  data += (alignment - (uintptr_t)data % alignment) % alignment;
  Block *block = (Block *)(void *)data - 1;
  *block = (Block){memory->newest, &memory->newest, cleanup, start, bytes};
  if (block->next != NULL) block->next->link = &block->next;
  memory->newest = block;
  return data;
}

void *allocate(Memory *memory, size_t count, size_t size) {
  if (size > 0 && count > SIZE_MAX / size) {
    fail(memory, EDGEQ_NO_MEMORY, "out of memory (%zu items of %zu bytes)", count, size);
  }
  return take(memory, count * size, LEAST_ALIGNMENT, NULL);
}

void *allocate_data(Memory *memory, size_t bytes) { return take(memory, bytes, EDGEQ_ALIGNMENT, NULL); }

void *allocate_with(Memory *memory, size_t size, void (*cleanup)(void *)) {
  return take(memory, size, EDGEQ_ALIGNMENT, cleanup);
}

void *reallocate(Memory *memory, void *old, size_t used, size_t size) {
  void *larger = allocate(memory, size, 1);
  if (used > 0) memcpy(larger, old, used);
  release(memory, old);
  return larger;
}

void release(Memory *memory, void *data) {
  if (data == NULL) return;
  Block *block = (Block *)data - 1;
  if (block->cleanup != NULL) block->cleanup(data);
  *block->link = block->next;
  if (block->next != NULL) block->next->link = block->link;
  if (memory->reuses) {
    block->next = memory->spare;
    memory->spare = block;
    memory->spare_bytes += block->bytes;
  } else {
    memory->allocator.release(memory->allocator.context, block->start);
  }
}

void release_all(Memory *memory) {
  while (memory->newest != NULL) release(memory, memory->newest + 1);
}

void release_spare(Memory *memory) {
  while (memory->spare != NULL) {
    Block *block = memory->spare;
    memory->spare = block->next;
    memory->allocator.release(memory->allocator.context, block->start);
  }
  memory->spare_bytes = 0;
}

char *copy_text(Memory *memory, const char *text) {
  size_t size = strlen(text) + 1;
  return memcpy(allocate(memory, size, 1), text, size);
}
