#include "../library/elf.h"
#include "fuzz.h"

static void body(void *argument) {
  static int given;
  const Symbol symbols[] = {{"memcpy", &given}, {"memset", &given}, {"__TVMBackendParallelLaunch", &given}};
  FuzzInput *input = argument;
  Elf *elf = elf_copy(input->memory, input->data, input->size);
  elf_load(input->memory, elf, "fuzz.so", symbols, 3);
  elf_find(elf, "__tvm_ffi_kernel");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_guarded(data, size, body);
  return 0;
}
