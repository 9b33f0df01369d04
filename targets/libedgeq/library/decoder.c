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

Decoder *decoder_open(Memory *memory, edgeq_session *session, size_t room) {
  Decoder *decoder = allocate(memory, 1, sizeof *decoder);
  decoder->session = session;
  decoder->room = room;
  decoder->vocabulary = (size_t)session->model->generation.vocabulary;
  decoder->lengths = allocate(memory, room, sizeof *decoder->lengths);
  decoder->added = allocate(memory, room, sizeof *decoder->added);
  if (reads_source(session->model)) {
    decoder->source_lengths = allocate(memory, room, sizeof *decoder->source_lengths);
  }
  if (decoder->vocabulary > SIZE_MAX / room) fail(memory, EDGEQ_NO_MEMORY, "the logits do not fit memory");
  decoder->logits = allocate(memory, room * decoder->vocabulary, sizeof *decoder->logits);
  decoder->ids = allocate(memory, room, CHUNK * sizeof *decoder->ids);
  reset_state(session, (int64_t)room);
  return decoder;
}

static void read_sources(Decoder *decoder, const Tokens *sources, size_t first, size_t count) {
  Memory *memory = &decoder->session->call;
  size_t width = 0;
  for (size_t row = 0; row < count; row++) width = sources[row].count > width ? sources[row].count : width;
  int64_t *ids = allocate(memory, count * width, sizeof *ids), *mask = allocate(memory, count * width, sizeof *mask);
  for (size_t row = 0; row < count; row++) {
    memcpy(ids + row * width, sources[row].ids, sources[row].count * sizeof *ids);
    for (size_t at = 0; at < sources[row].count; at++) mask[row * width + at] = 1;
    decoder->source_lengths[first + row] = (int64_t)sources[row].count;
  }
  const edgeq_tensor inputs[SOURCE_INPUTS] = {table_input(ids, count, width), table_input(mask, count, width),
                                              row_input(decoder->source_lengths + first, count)};
  size_t output_count = decoder->session->model->functions[EDGEQ_ENCODE].interface.output_count;
  edgeq_tensor *outputs = allocate(memory, output_count, sizeof *outputs);
  state_use_rows(decoder->session->state, (int64_t)first, (int64_t)count);
  run_function(decoder->session, EDGEQ_ENCODE, inputs, outputs, "an encoder input: ");
  release(memory, ids);
  release(memory, mask);
  release(memory, outputs);
}

void decoder_add(Decoder *decoder, const Tokens *sources, size_t count) {
  size_t first = decoder->batch;
  for (size_t row = first; row < first + count; row++) decoder->lengths[row] = 0;
  if (decoder->source_lengths != NULL) read_sources(decoder, sources, first, count);
  decoder->batch += count;
}

Decoder *decoder_open_beams(Memory *memory, edgeq_session *session, Tokens source, size_t beams) {
  Decoder *decoder = decoder_open(memory, session, beams);
  state_make_spare(&session->cache, session->state);
  decoder_add(decoder, &source, 1);
  state_repeat_source(session->state, (int64_t)beams, decoder->source_lengths[0]);
  for (size_t row = 1; row < beams; row++) decoder->source_lengths[row] = decoder->source_lengths[0];
  decoder->batch = beams;
  return decoder;
}

/* Tokens from `start` on, at most a chunk of each row; takes over the logits of rows that end with it. */
static void append_chunk(Decoder *decoder, const Tokens *tokens, size_t first, size_t count, size_t start) {
  int64_t *lengths = decoder->lengths + first, *added = decoder->added;
  float *logits = decoder->logits + first * decoder->vocabulary;
  size_t width = 0;
  for (size_t row = 0; row < count; row++) {
    size_t rest = tokens[row].count > start ? tokens[row].count - start : 0;
    added[row] = (int64_t)(rest < CHUNK ? rest : CHUNK);
    width = (size_t)added[row] > width ? (size_t)added[row] : width;
  }
  memset(decoder->ids, 0, count * width * sizeof *decoder->ids);
  for (size_t row = 0; row < count; row++) {
    if (added[row] == 0) continue;
    memcpy(decoder->ids + row * width, tokens[row].ids + start, (size_t)added[row] * sizeof *decoder->ids);
  }
  int64_t *source_lengths = decoder->source_lengths != NULL ? decoder->source_lengths + first : NULL;
  const edgeq_tensor inputs[TARGET_INPUTS] = {table_input(decoder->ids, count, width), row_input(lengths, count),
                                              row_input(added, count), row_input(source_lengths, count)};
  edgeq_tensor output;
  run_function(decoder->session, EDGEQ_MAIN, inputs, &output, "a sequence: ");
  const float *found = output.data;
  for (size_t row = 0; row < count; row++) {
    lengths[row] += added[row];
    if (added[row] > 0 && start + (size_t)added[row] == tokens[row].count) {
      memcpy(logits + row * decoder->vocabulary, found + row * decoder->vocabulary,
             decoder->vocabulary * sizeof *found);
    }
  }
}

const float *decoder_append(Decoder *decoder, const Tokens *tokens, size_t first, size_t count) {
  size_t longest = 0;
  for (size_t row = 0; row < count; row++) longest = tokens[row].count > longest ? tokens[row].count : longest;
  state_use_rows(decoder->session->state, (int64_t)first, (int64_t)count);
  for (size_t start = 0; start < longest; start += CHUNK) append_chunk(decoder, tokens, first, count, start);
  return decoder->logits;
}

void decoder_keep(Decoder *decoder, const size_t *rows, size_t count) {
  for (size_t to = 0; to < count; to++) {
    decoder->lengths[to] = decoder->lengths[rows[to]];
    if (decoder->source_lengths != NULL) decoder->source_lengths[to] = decoder->source_lengths[rows[to]];
  }
  decoder->batch = count;
  if (count > 0) state_keep(decoder->session->state, rows, count, decoder->lengths, decoder->source_lengths);
}

void decoder_reorder(Decoder *decoder, const size_t *rows) {
  state_reorder(decoder->session->state, rows, decoder->lengths[0]);
}
