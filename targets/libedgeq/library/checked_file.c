#include "checked_file.h"

#include <string.h>

#include "crc32.h"
#include "pool.h"

enum { DIGITS = 8 };

/* Blocks `first` to `end` - 1. */
typedef struct {
  size_t first, end;
} Blocks;

static int digit_value(char digit) {
  return digit >= '0' && digit <= '9' ? digit - '0' : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static bool read_digits(const char *digits, uint32_t *value) {
  *value = 0;
  for (int i = 0; i < DIGITS; i++) {
    int digit = digit_value(digits[i]);
    if (digit < 0) return false;
    *value = *value << 4 | (uint32_t)digit;
  }
  return true;
}

bool checked_file(Memory *memory, CheckedFile *file, Mapping data, const char *path, const char *digits) {
  size_t blocks = data.size / CHECKED_BLOCK + (data.size % CHECKED_BLOCK > 0);
  *file = (CheckedFile){.data = data, .path = copy_text(memory, path)};
  if (strlen(digits) / DIGITS != blocks || strlen(digits) % DIGITS != 0) return false;
  uint32_t *expected = allocate(memory, blocks, sizeof *expected);
  for (size_t i = 0; i < blocks; i++) {
    if (!read_digits(digits + DIGITS * i, &expected[i])) return false;
  }
  file->is_good = allocate(memory, blocks, sizeof *file->is_good);
  file->expected = expected;
  return true;
}

static Blocks blocks_of(const CheckedFile *file, const void *data, size_t size) {
  uintptr_t start = (uintptr_t)file->data.data, at = (uintptr_t)data;
  if (file->expected == NULL || size == 0 || at < start || at - start >= file->data.size) return (Blocks){0, 0};
  size_t place = (size_t)(at - start);
  return (Blocks){place / CHECKED_BLOCK, (place + size - 1) / CHECKED_BLOCK + 1};
}

static bool block_is_good(const CheckedFile *file, size_t block) {
  if (atomic_load_explicit(&file->is_good[block], memory_order_relaxed)) return true;
  size_t at = block * CHECKED_BLOCK, left = file->data.size - at;
  uint32_t found = crc32_of(file->data.data + at, left < CHECKED_BLOCK ? left : CHECKED_BLOCK);
  if (found != file->expected[block]) return false;
  atomic_store_explicit(&file->is_good[block], true, memory_order_relaxed);
  return true;
}

static bool blocks_are_good(const CheckedFile *file, Blocks blocks) {
  for (size_t block = blocks.first; block < blocks.end; block++) {
    if (!block_is_good(file, block)) return false;
  }
  return true;
}

_Noreturn void fail_damaged(const Memory *memory, const CheckedFile *file) {
  fail(memory, EDGEQ_DAMAGED, "%s is damaged: its CRC-32 is not what the manifest says; copy the bundle again",
       file->path);
}

bool bytes_are_good(const CheckedFile *file, const void *data, size_t size) {
  return blocks_are_good(file, blocks_of(file, data, size));
}

void check_bytes(const Memory *memory, const CheckedFile *file, const void *data, size_t size) {
  if (!bytes_are_good(file, data, size)) fail_damaged(memory, file);
}

typedef struct {
  const CheckedFile *file;
  Blocks blocks;
} Share;

/* Part `task` of the blocks, in a row: those next to each other are read one after the other. */
static int check_share(int task, TaskGroup *group, void *closure) {
  const Share *share = closure;
  size_t count = share->blocks.end - share->blocks.first, parts = (size_t)group->task_count;
  Blocks own = {share->blocks.first + count * (size_t)task / parts,
                share->blocks.first + count * ((size_t)task + 1) / parts};
  return blocks_are_good(share->file, own) ? 0 : -1;
}

void check_bytes_together(const Memory *memory, const CheckedFile *file, const void *data, size_t size) {
  Share share = {file, blocks_of(file, data, size)};
  while (share.blocks.first < share.blocks.end && atomic_load_explicit(&file->is_good[share.blocks.first],
                                                                       memory_order_relaxed)) {
    share.blocks.first++;
  }
  if (share.blocks.first == share.blocks.end) return;
  bool good = share.blocks.end - share.blocks.first == 1 ? blocks_are_good(file, share.blocks)
                                                        : pool_launch(check_share, &share, 0) == 0;
  if (!good) fail_damaged(memory, file);
}
