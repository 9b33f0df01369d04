/* Texts of any bytes through sound tables, which lie in the folder EDGEQ_FUZZ_TABLES. */
#include <stdio.h>

#include "../library/encoding.h"
#include "../library/token_texts.h"
#include "../library/tokenizer.h"
#include "../library/tokenizer_file.h"
#include "../library/utf8.h"
#include "fuzz.h"

static const char *const NAMES[] = {"words.bin",    "bytes.bin",  "unigram.bin",    "characters.bin",
                                    "composed.bin", "mapped.bin", "decomposed.bin", "marian.bin"};
enum { TABLES = sizeof NAMES / sizeof *NAMES };
static TokenizerTable tables[TABLES]; /* read once: checking one takes longer than most texts */
static size_t tables_read;

static void check_table(void *argument) {
  FuzzInput *input = argument;
  const char *reason = NULL;
  tables[tables_read] = read_tokenizer_table(input->memory, (Mapping){input->data, input->size}, "tokenizer.bin", &reason);
  if (reason != NULL) abort(); /* or nothing that follows would say anything */
}

static void read_table(const char *name) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s", EDGEQ_FUZZ_TABLES, name);
  FILE *file = fopen(path, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) abort();
  long size = ftell(file);
  char *data = aligned_alloc(64, ((size_t)size + 63) / 64 * 64);
  rewind(file);
  if (data == NULL || fread(data, 1, (size_t)size, file) != (size_t)size) abort();
  fclose(file);
  Failure failure;
  Memory memory = {.allocator = DEFAULT_ALLOCATOR, .failure = &failure};
  FuzzInput input = {&memory, data, (size_t)size};
  if (guarded(&failure, check_table, &input) != EDGEQ_OK) abort();
  tables_read++;
}

/* Every token lies in its text. */
static void check_places(const Rows *rows, const TextPart *parts) {
  for (size_t i = 0; i < rows->count; i++) {
    for (size_t at = 0; at < rows->rows[i].count; at++) {
      const edgeq_token *token = &rows->rows[i].tokens[at];
      if (token->sequence == EDGEQ_SPECIAL_TOKEN) continue;
      if (token->end_byte > parts[token->sequence].size || token->start_byte > token->end_byte) abort();
    }
  }
}

/* A text alone and, cut in two, as a pair: whole, cut, and in windows that overlap. The first bytes say how. */
static void encode(const TokenizerTable *table, const FuzzInput *input) {
  size_t half = input->size / 2;
  while (half > 0 && ((unsigned char)input->data[half] & 0xC0) == 0x80) half--;
  unsigned char choice = (unsigned char)(input->size > 0 ? input->data[0] : 0);
  const TextPart whole = {input->data, input->size};
  const TextPart parts[] = {{input->data, half}, {input->data + half, input->size - half}};
  Framing how = {.longest = 5 + choice % 30, .overlap = choice % 3, .is_traced = true, .cuts_left = choice & 1};
  how.truncation = choice % 3;
  how.keeps_windows = (choice & 4) != 0;
  Rows rows = encode_parts(input->memory, table, &whole, 1, &how, "text");
  check_places(&rows, &whole);
  Buffer text = {.memory = input->memory};
  join_tokens(table, rows.rows[0].ids, rows.rows[0].count, (choice & 8) != 0, &text);
  if (!is_utf8(text.data != NULL ? text.data : "", text.size)) abort();
  if (table->pair_count == 0) return;
  rows = encode_parts(input->memory, table, parts, 2, &how, "text");
  check_places(&rows, parts);
}

static void body(void *argument) {
  FuzzInput *input = argument;
  TokenizerTable table = tables[(unsigned char)(input->size > 0 ? input->data[input->size - 1] : 0) % TABLES];
  Buffer text = {.memory = input->memory};
  TextOutput output = {.table = &table, .held = {.memory = input->memory}};
  /* As token ids, whatever the bytes are, and as a text, if they are one. */
  for (size_t at = 0; at + 2 <= input->size; at += 2) {
    text_output_add(&output, (unsigned char)input->data[at] << 8 | (unsigned char)input->data[at + 1], &text);
  }
  text_output_finish(&output, &text);
  if (!is_utf8(text.data != NULL ? text.data : "", text.size)) abort();
  if (is_utf8(input->data, input->size) && memchr(input->data, '\0', input->size) == NULL) {
    encode(&table, input);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  while (tables_read < TABLES) read_table(NAMES[tables_read]);
  fuzz_guarded(data, size, body);
  return 0;
}
