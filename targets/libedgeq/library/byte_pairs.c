#include <stdbool.h>

#include "utf8.h"
#include "words.h"

/* A part of a word, in a linked list; merged into the one before when `token` is NO_TOKEN. */
typedef struct {
  uint32_t token;
  size_t size;          /* bytes that it stands for */
  size_t before, after; /* NONE at the ends */
} Part;

/* A pair that may be merged: the part at `place` and the one after it. */
typedef struct {
  uint32_t rank, result;
  size_t place;
} Candidate;

/* Candidates as a binary heap, the lowest rank first, and of equal ones the leftmost. */
typedef struct {
  Candidate *items;
  size_t count;
} Heap;

#define NONE SIZE_MAX

static bool is_before(const Candidate *a, const Candidate *b) {
  return a->rank != b->rank ? a->rank < b->rank : a->place < b->place;
}

static void push(Heap *heap, Candidate candidate) {
  size_t at = heap->count++;
  for (; at > 0 && is_before(&candidate, &heap->items[(at - 1) / 2]); at = (at - 1) / 2) {
    heap->items[at] = heap->items[(at - 1) / 2];
  }
  heap->items[at] = candidate;
}

static Candidate pop(Heap *heap) {
  Candidate first = heap->items[0], last = heap->items[--heap->count];
  size_t at = 0;
  for (size_t child = 1; child < heap->count; child = 2 * at + 1) {
    if (child + 1 < heap->count && is_before(&heap->items[child + 1], &heap->items[child])) child++;
    if (!is_before(&heap->items[child], &last)) break;
    heap->items[at] = heap->items[child];
    at = child;
  }
  heap->items[at] = last;
  return first;
}

static const Merge *find_merge(const TokenizerTable *table, uint32_t left, uint32_t right) {
  size_t low = 0, high = table->merge_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const Merge *merge = &table->merges[middle];
    if (merge->left == left && merge->right == right) return merge;
    if (merge->left < left || (merge->left == left && merge->right < right)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return NULL;
}

static void consider(const TokenizerTable *table, const Part *parts, size_t place, Heap *heap) {
  if (place == NONE || parts[place].after == NONE) return;
  const Merge *merge = find_merge(table, parts[place].token, parts[parts[place].after].token);
  if (merge != NULL) push(heap, (Candidate){merge->rank, merge->result, place});
}

static void merge(const TokenizerTable *table, Part *parts, Candidate candidate, Heap *heap) {
  Part *part = &parts[candidate.place];
  if (part->token == NO_TOKEN || part->after == NONE) return;
  Part *right = &parts[part->after];
  const Merge *found = find_merge(table, part->token, right->token);
  /* The pair may have changed since it was considered. */
  if (found == NULL || found->result != candidate.result) return;
  part->token = candidate.result;
  part->size += right->size;
  part->after = right->after;
  right->token = NO_TOKEN;
  if (part->after != NONE) parts[part->after].before = candidate.place;
  consider(table, parts, part->before, heap);
  consider(table, parts, candidate.place, heap);
}

/* Merges parts, and appends what is left of them. */
static void merge_all(const TokenizerTable *table, const WordText *word, Part *parts, size_t count, TokenList *tokens) {
  Memory *memory = tokens->ids.memory;
  size_t start = 0;
  /* Every merge takes a candidate away and adds at most two. */
  Heap heap = {allocate(memory, 3 * count + 1, sizeof *heap.items), 0};
  for (size_t i = 0; i < count; i++) {
    parts[i].before = i > 0 ? i - 1 : NONE;
    parts[i].after = i + 1 < count ? i + 1 : NONE;
  }
  for (size_t i = 0; i < count; i++) consider(table, parts, i, &heap);
  while (heap.count > 0) merge(table, parts, pop(&heap), &heap);
  for (size_t i = 0; i < count; i++) {
    if (parts[i].token == NO_TOKEN) continue;
    add_token(tokens, word, parts[i].token, start, start + parts[i].size);
    start += parts[i].size;
  }
  release(memory, heap.items);
}

/* Whether a word is a token as it is, which is then appended. */
static bool add_whole_word(const TokenizerTable *table, const WordText *word, TokenList *tokens) {
  uint32_t token = NO_TOKEN;
  if (table->settings->whole_words_first) {
    token = find_word(table, table->words, table->word_count, word->text, word->size);
  }
  if (token != NO_TOKEN) add_token(tokens, word, token, 0, word->size);
  return token != NO_TOKEN;
}

void word_to_byte_pairs(const TokenizerTable *table, const WordText *word, TokenList *tokens) {
  if (add_whole_word(table, word, tokens)) return;
  size_t count = 0;
  Part *parts = allocate(tokens->ids.memory, word->size, sizeof *parts);
  for (size_t i = 0; i < word->size; i++) {
    uint32_t token = table->bytes[(unsigned char)word->text[i]];
    /* Bytes that the vocabulary lacks are left out, as the package tokenizers does. */
    if (token != NO_TOKEN) parts[count++] = (Part){.token = token, .size = 1};
  }
  merge_all(table, word, parts, count, tokens);
  release(tokens->ids.memory, parts);
}

/* The bytes of a character as parts; returns how many, 0 if the tokenizer has not all of them. */
static size_t byte_parts(const TokenizerTable *table, const char *character, size_t size, Part *parts) {
  if (!table->settings->byte_fallback) return 0;
  for (size_t i = 0; i < size; i++) {
    parts[i] = (Part){.token = table->bytes[(unsigned char)character[i]], .size = 1};
    if (parts[i].token == NO_TOKEN) return 0;
  }
  return size;
}

void word_to_character_pairs(const TokenizerTable *table, const WordText *word, TokenList *tokens) {
  if (add_whole_word(table, word, tokens)) return;
  const TokenizerSettings *settings = table->settings;
  size_t count = 0, held = 0; /* bytes of unknown characters that wait for others to become one token with them */
  Part *parts = allocate(tokens->ids.memory, word->size + 1, sizeof *parts);
  for (size_t at = 0, end; at < word->size; at = end) {
    end = character_after(word->text, at);
    uint32_t token = find_word(table, table->words, table->word_count, word->text + at, end - at);
    if (token == NO_TOKEN) {
      size_t bytes = byte_parts(table, word->text + at, end - at, parts + count);
      count += bytes;
      if (bytes > 0 || settings->unknown == NO_TOKEN) continue;
      if (held > 0 && !settings->fuses_unknown) {
        parts[count++] = (Part){.token = settings->unknown, .size = held};
        held = 0;
      }
      held += end - at;
      continue;
    }
    if (held > 0) parts[count++] = (Part){.token = settings->unknown, .size = held};
    held = 0;
    parts[count++] = (Part){.token = token, .size = end - at};
  }
  if (held > 0) parts[count++] = (Part){.token = settings->unknown, .size = held};
  merge_all(table, word, parts, count, tokens);
  release(tokens->ids.memory, parts);
}
