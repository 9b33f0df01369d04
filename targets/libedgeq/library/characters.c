#include "characters.h"

#include <stdlib.h>

#include "utf8.h"

bool set_has(const TokenizerTable *table, uint32_t set, uint32_t character) {
  const Range *ranges = table->ranges + table->sets[set].first_range;
  size_t low = 0, high = table->sets[set].count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (character > ranges[middle].last) {
      low = middle + 1;
    } else if (character < ranges[middle].first) {
      high = middle;
    } else {
      return true;
    }
  }
  return false;
}

static const CharacterMapping *mapping_of(const TokenizerTable *table, const Step *step, uint32_t character) {
  const CharacterMapping *mappings = table->mappings + step->a;
  size_t low = 0, high = step->b;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (character > mappings[middle].last) {
      low = middle + 1;
    } else if (character < mappings[middle].first) {
      high = middle;
    } else {
      return &mappings[middle];
    }
  }
  return NULL;
}

/* A Hangul syllable's two or three parts (Unicode, 3.12). */
static void add_parts(Buffer *out, uint32_t syllable) {
  uint32_t index = syllable - 0xAC00;
  add_character(out, 0x1100 + index / 588);
  add_character(out, 0x1161 + index % 588 / 28);
  if (index % 28 != 0) add_character(out, 0x11A7 + index % 28);
}

static uint32_t order_of(const TokenizerTable *table, uint32_t character) {
  size_t low = 0, high = table->combining_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (table->combining[middle].character < character) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  bool found = low < table->combining_count && table->combining[low].character == character;
  return found ? table->combining[low].order : 0;
}

/* A mark in a run of them. */
typedef struct {
  uint32_t order;
  uint32_t character;
  size_t place;
} Mark;

/* By order; of equal ones the first first. */
static int by_order(const void *left, const void *right) {
  const Mark *a = left, *b = right;
  if (a->order != b->order) return a->order < b->order ? -1 : 1;
  return a->place < b->place ? -1 : 1;
}

static void add_marks(Buffer *ordered, Buffer *marks) {
  Mark *list = (Mark *)(void *)marks->data;
  size_t count = marks->size / sizeof *list;
  if (count > 1) qsort(list, count, sizeof *list, by_order);
  for (size_t i = 0; i < count; i++) add_character(ordered, list[i].character);
  marks->size = 0;
}

/* Puts the marks that follow each other into canonical order. */
static void order_marks(const TokenizerTable *table, Buffer *text, size_t from) {
  Buffer ordered = {.memory = text->memory}, marks = {.memory = text->memory};
  for (size_t at = from; at < text->size; at = character_after(text->data, at)) {
    uint32_t character = character_at(text->data, at);
    Mark mark = {order_of(table, character), character, at};
    if (mark.order != 0) {
      buffer_add(&marks, &mark, sizeof mark);
      continue;
    }
    add_marks(&ordered, &marks);
    add_character(&ordered, character);
  }
  add_marks(&ordered, &marks);
  text->size = from;
  buffer_add(text, ordered.data, ordered.size);
  buffer_release(&ordered);
  buffer_release(&marks);
}

void map_characters(const TokenizerTable *table, const Step *step, const char *text, size_t size, Buffer *out) {
  size_t from = out->size;
  for (size_t at = 0; at < size; at = character_after(text, at)) {
    uint32_t character = character_at(text, at);
    const CharacterMapping *mapping = mapping_of(table, step, character);
    if (mapping == NULL) {
      add_character(out, character);
    } else if (mapping->kind == PAD) {
      buffer_add(out, " ", 1);
      add_character(out, character);
      buffer_add(out, " ", 1);
    } else if (mapping->kind == DECOMPOSED) {
      add_parts(out, character);
    } else {
      buffer_add(out, table->strings + mapping->text.place, mapping->text.size);
    }
  }
  if (step->c != 0) order_marks(table, out, from);
}
