#include "decoder.h"

#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "inputs.h"

/* Tokens of a row in one call: bounds the memory of a long prompt. The bits do not depend on it. */
enum { CHUNK = 128 };

/* An int64 input [batch] or, with a width, [batch, width], of zeros. */
static Array new_input(const Spec *spec, size_t batch, size_t width) {
  Array input = {.type = spec->type, .dimensions = spec->dimensions, .shape = {(int64_t)batch, (int64_t)width}};
  input.bytes = array_bytes(input.type, input.dimensions, input.shape, spec->name);
  input.data = allocate_data(input.bytes);
  return input;
}

static int64_t *values(const Array *input) { return (int64_t *)(uintptr_t)input->data; }

static Array lengths_input(const Spec *spec, const int64_t *lengths, size_t batch) {
  Array input = new_input(spec, batch, 1);
  memcpy(values(&input), lengths, batch * sizeof *lengths);
  return input;
}

static void release_inputs(Array *inputs, size_t count) {
  for (size_t i = 0; i < count; i++) free(values(&inputs[i]));
}

Decoder decoder_open(const Bundle *bundle, Model *model, size_t batch) {
  Decoder decoder = {.bundle = bundle, .model = model, .batch = batch};
  decoder.vocabulary = (size_t)bundle->functions[MAIN].outputs[0].shape[1];
  decoder.state = state_new(bundle, (int64_t)batch);
  decoder.lengths = allocate(batch, sizeof *decoder.lengths);
  decoder.logits = allocate(batch * decoder.vocabulary, sizeof *decoder.logits);
  model_use_state(model, &decoder.state);
  return decoder;
}

static void read_sources(Decoder *decoder, const Tokens *sources, size_t count) {
  const Spec *specs = decoder->bundle->functions[ENCODE].inputs;
  size_t width = 0;
  for (size_t row = 0; row < count; row++) width = sources[row].count > width ? sources[row].count : width;
  Array inputs[SOURCE_INPUTS] = {new_input(&specs[0], count, width), new_input(&specs[1], count, width),
                                 lengths_input(&specs[2], decoder->source_lengths, count)};
  for (size_t row = 0; row < count; row++) {
    memcpy(values(&inputs[0]) + row * width, sources[row].ids, sources[row].count * sizeof(int64_t));
    for (size_t at = 0; at < sources[row].count; at++) values(&inputs[1])[row * width + at] = 1;
  }
  check_inputs(decoder->bundle, ENCODE, inputs, "a source");
  Outputs outputs = model_run(decoder->model, ENCODE, inputs);
  outputs_release(decoder->model, &outputs);
  release_inputs(inputs, SOURCE_INPUTS);
}

Decoder decoder_open_sources(const Bundle *bundle, Model *model, const Tokens *sources, size_t count, size_t beams) {
  Decoder decoder = decoder_open(bundle, model, count * beams);
  decoder.source_lengths = allocate(count * beams, sizeof *decoder.source_lengths);
  for (size_t row = 0; row < count * beams; row++) {
    decoder.source_lengths[row] = (int64_t)sources[beams > 1 ? 0 : row].count;
  }
  state_use_rows(&decoder.state, (int64_t)count);
  model_use_state(model, &decoder.state);
  read_sources(&decoder, sources, count);
  if (beams > 1) {
    state_repeat_source(&decoder.state, (int64_t)beams, decoder.source_lengths[0]);
    model_use_state(model, &decoder.state);
  }
  return decoder;
}

/* Tokens from `start` on, at most a chunk of each row; takes over the logits of rows that end with it. */
static void append_chunk(Decoder *decoder, const Tokens *tokens, size_t start) {
  const Spec *specs = decoder->bundle->functions[MAIN].inputs;
  size_t batch = decoder->batch, width = 0, count = reads_source(decoder->bundle) ? TARGET_INPUTS : DECODER_INPUTS;
  int64_t *added = allocate(batch, sizeof *added);
  for (size_t row = 0; row < batch; row++) {
    size_t rest = tokens[row].count > start ? tokens[row].count - start : 0;
    added[row] = (int64_t)(rest < CHUNK ? rest : CHUNK);
    width = (size_t)added[row] > width ? (size_t)added[row] : width;
  }
  Array inputs[TARGET_INPUTS] = {new_input(&specs[0], batch, width), lengths_input(&specs[1], decoder->lengths, batch),
                                 lengths_input(&specs[2], added, batch)};
  if (count == TARGET_INPUTS) inputs[3] = lengths_input(&specs[3], decoder->source_lengths, batch);
  for (size_t row = 0; row < batch; row++) {
    if (added[row] == 0) continue;
    memcpy(values(&inputs[0]) + row * width, tokens[row].ids + start, (size_t)added[row] * sizeof(int64_t));
  }
  check_inputs(decoder->bundle, MAIN, inputs, "a sequence");
  Outputs outputs = model_run(decoder->model, MAIN, inputs);
  const float *found = outputs.arrays[0].data;
  for (size_t row = 0; row < batch; row++) {
    decoder->lengths[row] += added[row];
    if (added[row] > 0 && start + (size_t)added[row] == tokens[row].count) {
      memcpy(decoder->logits + row * decoder->vocabulary, found + row * decoder->vocabulary,
             decoder->vocabulary * sizeof *found);
    }
  }
  outputs_release(decoder->model, &outputs);
  release_inputs(inputs, count);
  free(added);
}

const float *decoder_append(Decoder *decoder, const Tokens *tokens) {
  size_t longest = 0;
  for (size_t row = 0; row < decoder->batch; row++) longest = tokens[row].count > longest ? tokens[row].count : longest;
  for (size_t start = 0; start < longest; start += CHUNK) append_chunk(decoder, tokens, start);
  return decoder->logits;
}

void decoder_keep(Decoder *decoder, const size_t *rows, size_t count) {
  for (size_t to = 0; to < count; to++) {
    decoder->lengths[to] = decoder->lengths[rows[to]];
    if (decoder->source_lengths != NULL) decoder->source_lengths[to] = decoder->source_lengths[rows[to]];
  }
  decoder->batch = count;
  state_keep(&decoder->state, rows, count, decoder->lengths, decoder->source_lengths);
  model_use_state(decoder->model, &decoder->state);
}

void decoder_reorder(Decoder *decoder, const size_t *rows) {
  state_reorder(&decoder->state, rows, decoder->lengths[0]);
}

void decoder_close(Decoder *decoder) {
  model_use_state(decoder->model, NULL);
  state_release(&decoder->state);
  free(decoder->lengths);
  free(decoder->source_lengths);
  free(decoder->logits);
}
