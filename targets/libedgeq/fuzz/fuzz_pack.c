#include "fuzz.h"

#include "../library/sha256.h"

/* Gives the table the digest that it says it has, or nothing behind it would ever be looked at. */
static void mend_digest(char *data, size_t size) {
  uint64_t bytes = 0;
  char digest[1][SHA256_HEX];
  if (size < 64) return;
  memcpy(&bytes, data + 24, sizeof bytes);
  if (bytes > size - 64) return;
  sha256_hex(&(Message){data + 64, (size_t)bytes}, 1, digest);
  for (int i = 0; i < 32; i++) {
    char hex[3] = {digest[0][2 * i], digest[0][2 * i + 1], 0};
    data[32 + i] = (char)strtoul(hex, NULL, 16);
  }
}

/* The whole way of a packed bundle in memory, up to a model: code is loaded, and not run. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  edgeq_model *model = NULL;
  const edgeq_open_options options = {.size = sizeof options, .skip_digests = 1, .threads = 1};
  char *copy = NULL;
  if (posix_memalign((void **)&copy, 64, size > 0 ? size : 1) != 0) return 0;
  if (size > 0) memcpy(copy, data, size);
  mend_digest(copy, size);
  if (edgeq_open_memory(copy, size, &options, &model) != EDGEQ_OK && *edgeq_error(model) == '\0') abort();
  edgeq_close(model);
  free(copy);
  return 0;
}
