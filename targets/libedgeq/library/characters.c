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

/* The mapping of a character in a sorted list, or NULL. */
static const CharacterMapping *find_mapping(const CharacterMapping *mappings, size_t count, uint32_t character) {
  size_t low = 0, high = count;
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

const CharacterMapping *lower_of(const TokenizerTable *table, uint32_t character) {
  return find_mapping(table->lower, table->lower_count, character);
}

const CharacterMapping *mapping_of(const TokenizerTable *table, const Step *step, uint32_t character) {
  return find_mapping(table->mappings + step->a, step->b, character);
}

/* Unicode, 3.12. */
size_t hangul_parts(uint32_t syllable, uint32_t parts[3]) {
  uint32_t index = syllable - 0xAC00;
  parts[0] = 0x1100 + index / 588;
  parts[1] = 0x1161 + index % 588 / 28;
  parts[2] = 0x11A7 + index % 28;
  return index % 28 != 0 ? 3 : 2;
}

uint32_t order_of(const TokenizerTable *table, uint32_t character) {
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
  Place place;
  bool follows; /* a part of a character that begins before it */
  size_t at;
} Mark;

/* By order; of equal ones the first first. */
static int by_order(const void *left, const void *right) {
  const Mark *a = left, *b = right;
  if (a->order != b->order) return a->order < b->order ? -1 : 1;
  return a->at < b->at ? -1 : 1;
}

/* Marks in order. The places of whole characters stay in theirs: the package changes a text from the left to the right. */
static void add_marks(Traced *ordered, Buffer *marks, Place before) {
  Mark *list = (Mark *)(void *)marks->data;
  size_t count = marks->size / sizeof *list, taken = 0;
  Place *places = allocate(marks->memory, count, sizeof *places);
  for (size_t i = 0; i < count; i++) {
    if (!list[i].follows) places[taken++] = list[i].place;
  }
  if (count > 1) qsort(list, count, sizeof *list, by_order);
  taken = 0;
  for (size_t i = 0; i < count; i++) {
    char bytes[4];
    if (!list[i].follows) before = places[taken++];
    traced_add(ordered, bytes, put_character(bytes, list[i].character), before);
  }
  release(marks->memory, places);
  marks->size = 0;
}

/* Puts the marks that follow each other into canonical order. */
static void order_marks(const TokenizerTable *table, Traced *text) {
  Traced ordered = traced_like(text);
  Buffer marks = {.memory = text->text.memory};
  Place before = {0, 0};
  for (size_t at = 0; at < text->text.size; at = character_after(text->text.data, at)) {
    uint32_t character = character_at(text->text.data, at);
    Place place = place_of(text, at), last = at > 0 ? place_of(text, at - 1) : (Place){0, 0};
    bool follows = at > 0 && last.start == place.start && last.end == place.end;
    Mark mark = {order_of(table, character), character, place, follows, at};
    if (mark.order != 0) {
      buffer_add(&marks, &mark, sizeof mark);
      continue;
    }
    if (marks.size > 0) add_marks(&ordered, &marks, before);
    traced_copy(&ordered, text, at, character_after(text->text.data, at));
    before = place;
  }
  if (marks.size > 0) add_marks(&ordered, &marks, before);
  buffer_release(&marks);
  traced_release(text);
  *text = ordered;
}

void map_characters(const TokenizerTable *table, const Step *step, const Traced *text, Traced *out) {
  const char *data = text->text.data;
  for (size_t at = 0, end; at < text->text.size; at = end) {
    uint32_t character = character_at(data, at);
    const CharacterMapping *mapping = mapping_of(table, step, character);
    Place place = place_of(text, at);
    end = character_after(data, at);
    if (mapping == NULL) {
      traced_copy(out, text, at, end);
    } else if (mapping->kind == PAD) {
      traced_add(out, " ", 1, place);
      traced_copy(out, text, at, end);
      traced_add(out, " ", 1, place);
    } else if (mapping->kind == DECOMPOSED) {
      uint32_t parts[3];
      size_t count = hangul_parts(character, parts);
      for (size_t i = 0; i < count; i++) {
        char bytes[4];
        traced_add(out, bytes, put_character(bytes, parts[i]), place);
      }
    } else {
      traced_add(out, table->strings + mapping->text.place, mapping->text.size, place);
    }
  }
  if (step->c != 0) order_marks(table, out);
}
