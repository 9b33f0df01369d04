/* Files of tensors, as `edgeq-run --tensors` reads them: it ends the process, which here is a jump back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include "../program/stop.h"
#include "fuzz.h"

static jmp_buf stopped;
static void *reserved[1024];
static size_t reserved_count;

/* In place of program/stop.c. */
_Noreturn void stop(int code, const char *format, ...) {
  (void)code, (void)format;
  longjmp(stopped, 1);
}

void *reserve(size_t count, size_t size) {
  void *memory = reserved_count < 1024 ? calloc(count > 0 ? count : 1, size > 0 ? size : 1) : NULL;
  if (memory == NULL) longjmp(stopped, 1);
  reserved[reserved_count++] = memory;
  return memory;
}

#define EDGEQ_INPUT_FILE_H
typedef struct {
  char *data;
  size_t size;
} InputFile;
static InputFile current;
static InputFile read_file(const char *path) {
  (void)path;
  return current;
}

#include "../program/tensor_file.c"

static const edgeq_tensor_info INPUTS[] = {{.name = "input_ids", .type = EDGEQ_INT64, .rank = 2},
                                           {.name = "mask", .type = EDGEQ_FLOAT32, .rank = 3}};

/* In place of the library: a model with two functions. */
size_t edgeq_input_count(const edgeq_model *model, int32_t function) {
  (void)model;
  return function >= 0 && function < EDGEQ_FUNCTIONS ? 2 : 0;
}

const edgeq_tensor_info *edgeq_input_info(const edgeq_model *model, int32_t function, size_t index) {
  (void)model, (void)function;
  return &INPUTS[index];
}

size_t edgeq_output_count(const edgeq_model *model, int32_t function) {
  (void)model, (void)function;
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  current.data = malloc(size > 0 ? size : 1);
  current.size = size;
  if (current.data == NULL) return 0;
  if (size > 0) memcpy(current.data, data, size);
  reserved_count = 0;
  if (setjmp(stopped) == 0) {
    TensorReader reader = open_tensors("fuzz", NULL);
    for (uint32_t set = 0; set < reader.sets; set++) {
      int32_t function = 0;
      next_inputs(&reader, &function);
    }
    close_tensors(&reader);
  }
  while (reserved_count > 0) free(reserved[--reserved_count]);
  free(current.data);
  return 0;
}
