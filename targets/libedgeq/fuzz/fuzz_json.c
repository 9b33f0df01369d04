#include "../library/json.h"
#include "fuzz.h"

static void body(void *argument) {
  FuzzInput *input = argument;
  json_parse(input->memory, input->data, input->size, "fuzz.json");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_guarded(data, size, body);
  return 0;
}
