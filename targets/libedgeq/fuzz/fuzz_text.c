/* Texts of any bytes through a sound table, which EDGEQ_FUZZ_TABLE names. */
#include <stdio.h>

#include "../library/tokenizer.h"
#include "../library/utf8.h"
#include "fuzz.h"

static Mapping table_file;
static int table_is_read;

static void check_table(void *argument) {
  FuzzInput *input = argument;
  const char *reason = NULL;
  tokenizer_table(input->memory, (Mapping){input->data, input->size}, "tokenizer.bin", &reason);
  table_is_read = reason == NULL;
}

static void read_table(void) {
  FILE *file = fopen(EDGEQ_FUZZ_TABLE, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) abort();
  long size = ftell(file);
  char *data = aligned_alloc(64, ((size_t)size + 63) / 64 * 64);
  rewind(file);
  if (data == NULL || fread(data, 1, (size_t)size, file) != (size_t)size) abort();
  fclose(file);
  table_file = (Mapping){data, (size_t)size};
  fuzz_guarded((const uint8_t *)data, (size_t)size, check_table);
  if (!table_is_read) abort(); /* or nothing that follows would say anything */
}

static void body(void *argument) {
  FuzzInput *input = argument;
  const char *reason = NULL;
  TokenizerTable table = tokenizer_table(input->memory, table_file, "tokenizer.bin", &reason);
  Buffer ids = {.memory = input->memory}, text = {.memory = input->memory};
  TextOutput output = {.table = &table, .held = {.memory = input->memory}};
  /* As token ids, whatever the bytes are, and as a text, if they are one. */
  for (size_t at = 0; at + 2 <= input->size; at += 2) {
    text_output_add(&output, (unsigned char)input->data[at] << 8 | (unsigned char)input->data[at + 1], &text);
  }
  text_output_finish(&output, &text);
  if (!is_utf8(text.data != NULL ? text.data : "", text.size)) abort();
  if (is_utf8(input->data, input->size) && memchr(input->data, '\0', input->size) == NULL) {
    tokenizer_encode(&table, input->data, input->size, &ids);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (table_file.data == NULL) read_table();
  fuzz_guarded(data, size, body);
  return 0;
}
