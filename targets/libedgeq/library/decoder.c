#include "decoder.h"

#include <string.h>

/* Tokens of a row in one call: bounds the memory of a long prompt. The bits do not depend on it. */
enum { CHUNK = 128 };

static edgeq_tensor row_input(int64_t *values, size_t batch) {
  return (edgeq_tensor){.type = EDGEQ_INT64, .rank = 1, .shape = {(int64_t)batch}, .data = values};
}

static edgeq_tensor table_input(int64_t *values, size_t batch, size_t width) {
  return (edgeq_tensor){.type = EDGEQ_INT64, .rank = 2, .shape = {(int64_t)batch, (int64_t)width}, .data = values};
}

Decoder *decoder_open(Memory *memory, edgeq_session *session, size_t batch) {
  Decoder *decoder = allocate(memory, 1, sizeof *decoder);
  decoder->session = session;
  decoder->batch = batch;
  decoder->vocabulary = (size_t)session->model->generation.vocabulary;
  decoder->lengths = allocate(memory, batch, sizeof *decoder->lengths);
  decoder->added = allocate(memory, batch, sizeof *decoder->added);
  if (decoder->vocabulary > SIZE_MAX / batch) fail(memory, EDGEQ_NO_MEMORY, "the logits do not fit memory");
  decoder->logits = allocate(memory, batch * decoder->vocabulary, sizeof *decoder->logits);
  decoder->id_room = batch * CHUNK;
  decoder->ids = allocate(memory, decoder->id_room, sizeof *decoder->ids);
  reset_state(session, (int64_t)batch);
  return decoder;
}

static void read_sources(Memory *memory, Decoder *decoder, const Tokens *sources, size_t count) {
  size_t width = 0;
  for (size_t row = 0; row < count; row++) width = sources[row].count > width ? sources[row].count : width;
  int64_t *ids = allocate(memory, count * width, sizeof *ids), *mask = allocate(memory, count * width, sizeof *mask);
  for (size_t row = 0; row < count; row++) {
    memcpy(ids + row * width, sources[row].ids, sources[row].count * sizeof *ids);
    for (size_t at = 0; at < sources[row].count; at++) mask[row * width + at] = 1;
  }
  const edgeq_tensor inputs[SOURCE_INPUTS] = {table_input(ids, count, width), table_input(mask, count, width),
                                              row_input(decoder->source_lengths, count)};
  size_t output_count = decoder->session->model->functions[EDGEQ_ENCODE].interface.output_count;
  edgeq_tensor *outputs = allocate(memory, output_count, sizeof *outputs);
  run_function(decoder->session, EDGEQ_ENCODE, inputs, outputs, "a source: ");
  release(memory, ids);
  release(memory, mask);
  release(memory, outputs);
}

Decoder *decoder_open_sources(Memory *memory, edgeq_session *session, const Tokens *sources, size_t count,
                              size_t beams) {
  Decoder *decoder = decoder_open(memory, session, count * beams);
  decoder->source_lengths = allocate(memory, count * beams, sizeof *decoder->source_lengths);
  for (size_t row = 0; row < count * beams; row++) {
    decoder->source_lengths[row] = (int64_t)sources[beams > 1 ? 0 : row].count;
  }
  if (beams > 1) state_make_spare(&session->cache, session->state);
  state_use_rows(session->state, (int64_t)count);
  read_sources(memory, decoder, sources, count);
  if (beams > 1) state_repeat_source(session->state, (int64_t)beams, decoder->source_lengths[0]);
  return decoder;
}

/* Tokens from `start` on, at most a chunk of each row; takes over the logits of rows that end with it. */
static void append_chunk(Decoder *decoder, const Tokens *tokens, size_t start) {
  size_t batch = decoder->batch, width = 0;
  for (size_t row = 0; row < batch; row++) {
    size_t rest = tokens[row].count > start ? tokens[row].count - start : 0;
    decoder->added[row] = (int64_t)(rest < CHUNK ? rest : CHUNK);
    width = (size_t)decoder->added[row] > width ? (size_t)decoder->added[row] : width;
  }
  memset(decoder->ids, 0, batch * width * sizeof *decoder->ids);
  for (size_t row = 0; row < batch; row++) {
    if (decoder->added[row] == 0) continue;
    memcpy(decoder->ids + row * width, tokens[row].ids + start, (size_t)decoder->added[row] * sizeof *decoder->ids);
  }
  const edgeq_tensor inputs[TARGET_INPUTS] = {table_input(decoder->ids, batch, width), row_input(decoder->lengths, batch),
                                              row_input(decoder->added, batch), row_input(decoder->source_lengths, batch)};
  edgeq_tensor output;
  run_function(decoder->session, EDGEQ_MAIN, inputs, &output, "a sequence: ");
  const float *found = output.data;
  for (size_t row = 0; row < batch; row++) {
    size_t added = (size_t)decoder->added[row];
    decoder->lengths[row] += decoder->added[row];
    if (added > 0 && start + added == tokens[row].count) {
      memcpy(decoder->logits + row * decoder->vocabulary, found + row * decoder->vocabulary,
             decoder->vocabulary * sizeof *found);
    }
  }
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
  state_keep(decoder->session->state, rows, count, decoder->lengths, decoder->source_lengths);
}

void decoder_reorder(Decoder *decoder, const size_t *rows) {
  state_reorder(decoder->session->state, rows, decoder->lengths[0]);
}
