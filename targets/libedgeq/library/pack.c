#include "pack.h"

#include <stdint.h>
#include <string.h>

#include "sha256.h"

enum { HEADER = 64, ENTRY = 18, TRAILER = 32, ALIGNMENT = 4096, PACK_VERSION = 1, MOST_FILES = 4096, DIGEST = 32 };

static const char MAGIC[] = "EDGEQPK1", END_MAGIC[] = "EDGEQEND";

static void check(const Memory *memory, bool fits, const char *path, const char *what) {
  if (!fits) fail(memory, EDGEQ_DAMAGED, "%s is damaged: %s; copy or pack the bundle again", path, what);
}

static uint64_t number_at(const char *at, int bytes) {
  uint64_t value = 0;
  for (int i = bytes; i-- > 0;) value = value << 8 | (unsigned char)at[i];
  return value;
}

/* The packed file in a file: all of it, or what stands before the last bytes of a program. */
static Mapping find_pack(const Memory *memory, Mapping whole, const char *path) {
  if (whole.size >= HEADER && memcmp(whole.data, MAGIC, 8) == 0) return whole;
  const char *trailer = whole.size >= TRAILER ? whole.data + whole.size - TRAILER : NULL;
  if (trailer == NULL || memcmp(trailer, END_MAGIC, 8) != 0) {
    fail(memory, EDGEQ_USAGE, "%s is neither a folder nor a packed bundle", path);
  }
  uint64_t place = number_at(trailer + 8, 8), bytes = number_at(trailer + 16, 8), most = whole.size - TRAILER;
  check(memory, place <= most && bytes <= most - place && place % ALIGNMENT == 0 && bytes >= HEADER, path,
        "its end is not as expected");
  Mapping pack = {whole.data + place, (size_t)bytes};
  check(memory, memcmp(pack.data, MAGIC, 8) == 0, path, "it holds no packed bundle");
  return pack;
}

static void check_table(const Memory *memory, Mapping table, const char *expected, const char *path) {
  char found[1][SHA256_HEX], wanted[SHA256_HEX] = {0};
  for (int i = 0; i < DIGEST; i++) {
    static const char digits[] = "0123456789abcdef";
    wanted[2 * i] = digits[(unsigned char)expected[i] >> 4];
    wanted[2 * i + 1] = digits[expected[i] & 15];
  }
  sha256_hex(&(Message){table.data, table.size}, 1, found);
  check(memory, strcmp(found[0], wanted) == 0, path, "the SHA-256 of its table is another one");
}

Pack read_pack(Memory *memory, Mapping whole, const char *path) {
  Mapping pack = find_pack(memory, whole, path);
  if (number_at(pack.data + 8, 4) != PACK_VERSION) {
    fail(memory, EDGEQ_UNSUPPORTED, "%s is packed in version %u, expected %d; pack the bundle again", path,
         (unsigned)number_at(pack.data + 8, 4), PACK_VERSION);
  }
  uint64_t count = number_at(pack.data + 12, 4), bytes = number_at(pack.data + 24, 8);
  check(memory, number_at(pack.data + 16, 8) == pack.size, path, "it has another size than it says");
  check(memory, count <= MOST_FILES && bytes <= pack.size - HEADER, path, "its table lies outside of it");
  Mapping table = {pack.data + HEADER, (size_t)bytes};
  check_table(memory, table, pack.data + 32, path);
  Pack result = {allocate(memory, (size_t)count, sizeof *result.files), 0};
  for (size_t at = 0; result.count < count; result.count++) {
    PackedFile *file = &result.files[result.count];
    check(memory, table.size - at >= ENTRY, path, "its table is cut off");
    uint64_t place = number_at(table.data + at, 8), size = number_at(table.data + at + 8, 8);
    size_t length = (size_t)number_at(table.data + at + 16, 2);
    at += ENTRY;
    check(memory, length > 0 && length <= table.size - at, path, "its table is cut off");
    check(memory, place % ALIGNMENT == 0 && place <= pack.size && size <= pack.size - place, path,
          "a file lies outside of it");
    char *name = allocate(memory, length + 1, 1);
    memcpy(name, table.data + at, length);
    *file = (PackedFile){name, {pack.data + place, (size_t)size}};
    at += length;
  }
  return result;
}

const PackedFile *find_packed(const Pack *pack, const char *name) {
  for (size_t i = 0; i < pack->count; i++) {
    if (strcmp(pack->files[i].name, name) == 0) return &pack->files[i];
  }
  return NULL;
}
