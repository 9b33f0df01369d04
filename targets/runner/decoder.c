#include "decoder.h"

#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "inputs.h"
#include "state.h"

/* Tokens of a long prompt in one call: bounds the memory. The bits do not depend on it. */
enum { CHUNK = 128 };

Decoder decoder_open(const Bundle *bundle, Model *model) {
  Decoder decoder = {.bundle = bundle, .model = model, .state = state_new(bundle, 1)};
  decoder.tokens = allocate_data(CHUNK * sizeof *decoder.tokens);
  decoder.length = allocate_data(sizeof *decoder.length);
  decoder.added = allocate_data(sizeof *decoder.added);
  model_use_state(model, decoder.state);
  return decoder;
}

static void call(Decoder *decoder, const int64_t *ids, int64_t count, const char *where) {
  const Spec *specs = decoder->bundle->inputs;
  Array inputs[DECODER_INPUTS] = {
      {.type = specs[0].type, .dimensions = 2, .shape = {1, count}, .data = decoder->tokens},
      {.type = specs[1].type, .dimensions = 1, .shape = {1}, .data = decoder->length},
      {.type = specs[2].type, .dimensions = 1, .shape = {1}, .data = decoder->added},
  };
  memcpy(decoder->tokens, ids, (size_t)count * sizeof *ids);
  *decoder->added = count;
  for (size_t i = 0; i < DECODER_INPUTS; i++) {
    inputs[i].bytes = array_bytes(inputs[i].type, inputs[i].dimensions, inputs[i].shape, specs[i].name);
  }
  check_inputs(decoder->bundle, inputs, where);
  if (decoder->outputs.arrays != NULL) outputs_release(decoder->model, &decoder->outputs);
  decoder->outputs = model_run(decoder->model, inputs);
  *decoder->length += count;
}

const float *decoder_append(Decoder *decoder, const int64_t *ids, size_t count, const char *where) {
  for (size_t start = 0; start < count; start += CHUNK) {
    size_t rest = count - start;
    call(decoder, ids + start, (int64_t)(rest < CHUNK ? rest : CHUNK), where);
  }
  return decoder->outputs.arrays[0].data;
}

void decoder_close(Decoder *decoder) {
  if (decoder->outputs.arrays != NULL) outputs_release(decoder->model, &decoder->outputs);
  model_use_state(decoder->model, NULL);
  state_release(decoder->bundle, decoder->state);
  free(decoder->tokens);
  free(decoder->length);
  free(decoder->added);
}
