#include "../library/tokenizer.h"
#include "fuzz.h"

static const char TEXT[] = "The Caf\u00e9  sat's <mask> 12 \u6c49\u5b57 \ud55c\uad6d a\u0301\u0323!\n<s> ## ab\tab <|endoftext|>";

static void body(void *argument) {
  FuzzInput *input = argument;
  const char *reason = NULL;
  TokenizerTable table = tokenizer_table(input->memory, (Mapping){input->data, input->size}, "tokenizer.bin", &reason);
  if (reason != NULL) return;
  Buffer ids = {.memory = input->memory}, text = {.memory = input->memory};
  tokenizer_encode(&table, TEXT, sizeof TEXT - 1, &ids);
  TextOutput output = {.table = &table, .held = {.memory = input->memory}};
  for (size_t at = 0; at + sizeof(int64_t) <= ids.size; at += sizeof(int64_t)) {
    int64_t id;
    memcpy(&id, ids.data + at, sizeof id);
    text_output_add(&output, id, &text);
  }
  text_output_finish(&output, &text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_guarded(data, size, body);
  return 0;
}
