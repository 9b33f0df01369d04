#include "encoding.h"

#include <string.h>

#include "tokenizer.h"
#include "utf8.h"

/* Tokens of a sequence that are in one row. */
typedef struct {
  size_t start, end;
} Window;

/* A text of a pair, or the only one. */
typedef struct {
  TextPart part;
  TokenList tokens;
  size_t count;
  Window *windows;
  size_t window_count;
  uint32_t *characters; /* for each byte the number of its character; NULL unless traced */
} Sequence;

static const FrameItem *frame_of(const TokenizerTable *table, size_t texts, size_t *count) {
  *count = texts == 1 ? table->single_count : table->pair_count;
  return texts == 1 ? table->single : table->pair;
}

size_t frame_tokens(const TokenizerTable *table, size_t texts) {
  size_t count = 0, found = 0;
  const FrameItem *items = frame_of(table, texts, &count);
  for (size_t i = 0; i < count; i++) found += items[i].kind == FRAME_TOKEN;
  return found;
}

static uint32_t *number_characters(Memory *memory, TextPart part) {
  uint32_t *numbers = allocate(memory, part.size + 1, sizeof *numbers), number = 0;
  for (size_t at = 0; at < part.size; number++) {
    size_t end = character_after(part.text, at);
    for (; at < end; at++) numbers[at] = number;
  }
  numbers[part.size] = number;
  return numbers;
}

/* Windows of at most `most` tokens: the first one keeps what a cut keeps, the others follow to its other side. */
static void make_windows(Memory *memory, Sequence *sequence, size_t most, const Framing *how, const char *name) {
  size_t count = sequence->count, used = 0;
  if (most >= count) return;
  if (!how->keeps_windows) {
    size_t start = how->cuts_left ? count - most : 0;
    sequence->windows[0] = (Window){start, start + most};
    return;
  }
  if (how->overlap >= most) {
    fail(memory, EDGEQ_USAGE, "%s: rows that overlap by %zu tokens need more than the %zu that are left for the text", name,
         how->overlap, most);
  }
  size_t step = most - how->overlap;
  release(memory, sequence->windows);
  sequence->windows = allocate(memory, count / step + 2, sizeof *sequence->windows);
  for (size_t done = 0; done < count; done += step) {
    size_t end = how->cuts_left ? count - done : done + most < count ? done + most : count;
    size_t start = !how->cuts_left ? done : end > most ? end - most : 0;
    sequence->windows[used++] = (Window){start, end};
    if (how->cuts_left ? start == 0 : end == count) break;
  }
  sequence->window_count = used;
}

/* Shares `most` tokens between two texts: the longer one loses first. */
static void share_tokens(size_t most, size_t *first, size_t *second) {
  bool swaps = *first > *second;
  size_t shorter = swaps ? *second : *first, longer = swaps ? *first : *second;
  if (shorter > most) {
    longer = shorter;
  } else {
    longer = most - shorter > shorter ? most - shorter : shorter;
  }
  if (shorter + longer > most) {
    shorter = most / 2;
    longer = shorter + most % 2;
  }
  *first = swaps ? longer : shorter;
  *second = swaps ? shorter : longer;
}

/* Cuts the sequences so that rows fit; true if anything was too long. */
static bool fit(Memory *memory, const TokenizerTable *table, Sequence *sequences, size_t texts, const Framing *how,
                const char *name) {
  size_t around = frame_tokens(table, texts), total = sequences[0].count + (texts == 2 ? sequences[1].count : 0);
  if (how->longest == 0 || around + total <= how->longest) return false;
  if (how->longest < around) fail(memory, EDGEQ_USAGE, "%s does not fit into %zu tokens", name, how->longest);
  size_t most = how->longest - around, away = total - most;
  size_t keep[2] = {sequences[0].count, texts == 2 ? sequences[1].count : 0};
  if (texts == 1) {
    keep[0] = most;
  } else if (how->truncation == EDGEQ_LONGEST_FIRST) {
    share_tokens(most, &keep[0], &keep[1]);
  } else {
    int which = how->truncation == EDGEQ_ONLY_SECOND;
    if (keep[which] <= away) {
      fail(memory, EDGEQ_USAGE, "%s: its %s text alone leaves no token of %zu for the other; shorten it", name,
           which == 1 ? "first" : "second", how->longest);
    }
    keep[which] -= away;
  }
  for (size_t i = 0; i < texts; i++) make_windows(memory, &sequences[i], keep[i], how, name);
  return true;
}

/* Space at the ends of a token is not counted to it, but a single one that may have been put before the text. */
static void trim(const TokenRoles *roles, const TokenOrigin *origin, bool is_first, edgeq_token *token) {
  size_t leading = origin->leading, trailing = origin->trailing;
  if (roles == NULL || !roles->trims) return;
  if (leading == 1 && roles->adds_space && (is_first || token->start == 0)) leading = 0;
  token->start = token->start + leading < token->end ? token->start + leading : token->end;
  if (trailing > 0 && token->end >= trailing) {
    token->end = token->end - trailing > token->start ? token->end - trailing : token->start;
  }
}

/* The byte at which a character of a text starts. */
static size_t byte_of(const Sequence *sequence, size_t near, size_t character) {
  const uint32_t *numbers = sequence->characters;
  size_t at = near <= sequence->part.size ? near : sequence->part.size;
  while (at < sequence->part.size && numbers[at] < character) at++;
  while (at > 0 && numbers[at - 1] >= character) at--;
  return at;
}

static edgeq_token traced_token(const TokenizerTable *table, const Sequence *sequence, size_t index, bool is_first) {
  const TokenOrigin *origin = (const TokenOrigin *)(const void *)sequence->tokens.origins.data + index;
  const uint32_t *numbers = sequence->characters;
  size_t size = sequence->part.size;
  Place place = origin->place;
  edgeq_token token = {.word = origin->word, .start = place.start, .end = place.end};
  if (place.start < size && place.end <= size) {
    token.start = numbers[place.start];
    token.end = place.end < size ? numbers[place.end] : place.end > 0 ? numbers[place.end - 1] + 1u : 0;
  }
  trim(table->roles, origin, is_first, &token);
  token.start_byte = byte_of(sequence, place.start, token.start);
  token.end_byte = byte_of(sequence, place.end, token.end);
  return token;
}

static void add_sequence(const TokenizerTable *table, const Sequence *sequence, Window window, const FrameItem *item, Row *row) {
  const int64_t *ids = (const int64_t *)(const void *)sequence->tokens.ids.data;
  for (size_t at = window.start; at < window.end; at++) {
    size_t to = row->count++;
    row->ids[to] = ids[at];
    row->types[to] = item->type;
    if (row->tokens == NULL) continue;
    row->tokens[to] = traced_token(table, sequence, at, at == window.start);
    row->tokens[to].id = ids[at];
    row->tokens[to].type = (int32_t)item->type;
    row->tokens[to].sequence = item->kind == FRAME_SECOND;
  }
}

static Row make_row(Memory *memory, const TokenizerTable *table, const Sequence *sequences, size_t texts,
                    const Window *windows, const Framing *how) {
  size_t items = 0, most = frame_tokens(table, texts);
  const FrameItem *frame = frame_of(table, texts, &items);
  for (size_t i = 0; i < texts; i++) most += windows[i].end - windows[i].start;
  Row row = {.ids = allocate(memory, most, sizeof *row.ids), .types = allocate(memory, most, sizeof *row.types)};
  if (how->is_traced) row.tokens = allocate(memory, most, sizeof *row.tokens);
  for (size_t i = 0; i < items; i++) {
    if (frame[i].kind != FRAME_TOKEN) {
      size_t which = frame[i].kind == FRAME_SECOND;
      add_sequence(table, &sequences[which], windows[which], &frame[i], &row);
      continue;
    }
    if (row.tokens != NULL) {
      row.tokens[row.count] = (edgeq_token){
          .id = frame[i].token, .type = (int32_t)frame[i].type, .sequence = EDGEQ_SPECIAL_TOKEN, .word = SIZE_MAX};
    }
    row.ids[row.count] = frame[i].token;
    row.types[row.count++] = frame[i].type;
  }
  return row;
}

/* A row of every window: of the first text, each with all of the second, but those of the first row's text come last. */
static void make_rows(Memory *memory, const TokenizerTable *table, const Sequence *sequences, size_t texts,
                      const Framing *how, Rows *rows) {
  size_t first = sequences[0].window_count, second = texts == 2 ? sequences[1].window_count : 1;
  rows->rows = allocate(memory, first * second, sizeof *rows->rows);
  for (size_t number = 0; number < first * second; number++) {
    size_t a = number == 0 ? 0 : 1 + (number - 1) / second, b = number == 0 ? 0 : (number - 1) % second;
    if (a == first) {
      a = 0;
      b++;
    }
    Window windows[2] = {sequences[0].windows[a], texts == 2 ? sequences[1].windows[b] : (Window){0, 0}};
    rows->rows[rows->count++] = make_row(memory, table, sequences, texts, windows, how);
  }
}

Rows encode_parts(Memory *memory, const TokenizerTable *table, const TextPart *parts, size_t texts, const Framing *how,
                  const char *name) {
  Sequence sequences[2] = {{.count = 0}, {.count = 0}};
  Rows rows = {.tokens = 0};
  if (texts == 2 && table->pair_count == 0) {
    fail(memory, EDGEQ_USAGE, "%s is a pair, which this bundle's tokenizer does not know; compile the bundle again", name);
  }
  for (size_t i = 0; i < texts; i++) {
    sequences[i] = (Sequence){.part = parts[i], .tokens = token_list(memory, how->is_traced), .window_count = 1};
    tokenizer_encode(table, parts[i].text, parts[i].size, &sequences[i].tokens);
    sequences[i].count = token_count(&sequences[i].tokens);
    sequences[i].windows = allocate(memory, 1, sizeof *sequences[i].windows);
    sequences[i].windows[0] = (Window){0, sequences[i].count};
    if (how->is_traced) sequences[i].characters = number_characters(memory, parts[i]);
    rows.tokens += sequences[i].count;
  }
  rows.tokens += frame_tokens(table, texts);
  bool was_long = fit(memory, table, sequences, texts, how, name);
  rows.is_cut = was_long && !how->keeps_windows;
  make_rows(memory, table, sequences, texts, how, &rows);
  for (size_t i = 0; i < texts; i++) {
    buffer_release(&sequences[i].tokens.ids);
    buffer_release(&sequences[i].tokens.origins);
    release(memory, sequences[i].windows);
    release(memory, sequences[i].characters);
  }
  return rows;
}
