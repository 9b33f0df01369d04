#include "../library/encoding.h"
#include "../library/token_texts.h"
#include "../library/tokenizer.h"
#include "../library/tokenizer_file.h"
#include "fuzz.h"

static const char TEXT[] = "The Caf\u00e9  sat's <mask> 12 \u6c49\u5b57 \ud55c\uad6d a\u0301\u0323!\n<s> ## ab\tab <|endoftext|>";

static void body(void *argument) {
  FuzzInput *input = argument;
  const char *reason = NULL;
  TokenizerTable table = read_tokenizer_table(input->memory, (Mapping){input->data, input->size}, "tokenizer.bin", &reason);
  if (reason != NULL) return;
  Buffer text = {.memory = input->memory};
  const TextPart parts[] = {{TEXT, sizeof TEXT - 1}, {TEXT + 20, 30}};
  const Framing how = {.longest = 24, .overlap = 1, .keeps_windows = true, .is_traced = true};
  Rows rows = encode_parts(input->memory, &table, parts, table.pair_count > 0 ? 2 : 1, &how, "text");
  TextOutput output = {.table = &table, .held = {.memory = input->memory}};
  for (size_t i = 0; i < rows.count; i++) {
    for (size_t at = 0; at < rows.rows[i].count; at++) text_output_add(&output, rows.rows[i].ids[at], &text);
    if (table.roles != NULL && table.roles->joins) join_tokens(&table, rows.rows[i].ids, rows.rows[i].count, i % 2 == 0, &text);
  }
  text_output_finish(&output, &text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_guarded(data, size, body);
  return 0;
}
