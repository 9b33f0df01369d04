#include "composing.h"

#include <stdlib.h>

#include "changes.h"
#include "characters.h"
#include "utf8.h"

/* A character or a part of one; `change` counts places, see changes.h. */
typedef struct {
  uint32_t character, order;
  int64_t change;
  size_t at;
} Item;

static Item *items_of(const Buffer *buffer) { return (Item *)(void *)buffer->data; }

static size_t item_count(const Buffer *buffer) { return buffer->size / sizeof(Item); }

static void add_part(const TokenizerTable *table, uint32_t character, bool is_first, Buffer *items) {
  const Item item = {character, order_of(table, character), is_first ? 0 : 1, item_count(items)};
  buffer_add(items, &item, sizeof item);
}

/* All parts of a text's characters, as they come. */
static void add_parts(const TokenizerTable *table, const Step *step, const Traced *text, Buffer *items) {
  const char *data = text->text.data;
  for (size_t at = 0; at < text->text.size; at = character_after(data, at)) {
    uint32_t character = character_at(data, at), parts[3];
    const CharacterMapping *mapping = mapping_of(table, step, character);
    if (mapping == NULL) {
      add_part(table, character, true, items);
    } else if (mapping->kind == DECOMPOSED) {
      size_t count = hangul_parts(character, parts);
      for (size_t i = 0; i < count; i++) add_part(table, parts[i], i == 0, items);
    } else {
      const char *image = table->strings + mapping->text.place;
      for (size_t i = 0; i < mapping->text.size; i = character_after(image, i)) {
        add_part(table, character_at(image, i), i == 0, items);
      }
    }
  }
}

/* By order; of equal ones the first first. */
static int by_order(const void *left, const void *right) {
  const Item *a = left, *b = right;
  if (a->order != b->order) return a->order < b->order ? -1 : 1;
  return a->at < b->at ? -1 : a->at > b->at;
}

/* Puts the marks that follow each other into canonical order. */
static void order_items(Buffer *buffer) {
  Item *items = items_of(buffer);
  size_t count = item_count(buffer);
  for (size_t start = 0, end; start < count; start = end) {
    end = start + 1;
    if (items[start].order == 0) continue;
    while (end < count && items[end].order != 0) end++;
    qsort(items + start, end - start, sizeof *items, by_order);
  }
}

/* What two characters become, 0 if nothing; Hangul by its rule (Unicode, 3.12). */
static uint32_t compose(const TokenizerTable *table, uint32_t first, uint32_t second) {
  if (first - 0x1100 < 19 && second - 0x1161 < 21) return 0xAC00 + ((first - 0x1100) * 21 + second - 0x1161) * 28;
  if (first - 0xAC00 < 11172 && (first - 0xAC00) % 28 == 0 && second - 0x11A8 < 27) return first + second - 0x11A7;
  size_t low = 0, high = table->composition_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const Composition *found = &table->compositions[middle];
    if (found->first == first && found->second == second) return found->both;
    if (found->first < first || (found->first == first && found->second < second)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return 0;
}

static void put(Changes *changes, const Item *item) {
  char bytes[4];
  changes_put(changes, bytes, put_character(bytes, item->character), item->change);
}

static void put_all(Changes *changes, Buffer *held) {
  for (size_t i = 0; i < item_count(held); i++) put(changes, &items_of(held)[i]);
  held->size = 0;
}

void compose_characters(const TokenizerTable *table, const Step *step, const Traced *text, Traced *out) {
  Memory *memory = text->text.memory;
  Buffer items = {.memory = memory}, held = {.memory = memory}; /* marks behind `base` that do not join it */
  Changes changes = {.text = text, .out = out};
  Item base = {0, 0, 0, 0};
  bool has_base = false;
  add_parts(table, step, text, &items);
  order_items(&items);
  for (size_t i = 0; i < item_count(&items); i++) {
    Item item = items_of(&items)[i];
    if (!has_base && item.order != 0) {
      put(&changes, &item);
      continue;
    }
    size_t marks = item_count(&held);
    bool is_blocked = has_base && marks > 0 && items_of(&held)[marks - 1].order >= item.order;
    uint32_t both = has_base && !is_blocked ? compose(table, base.character, item.character) : 0;
    if (both != 0) {
      base.character = both;
      base.change += item.change - 1;
    } else if (item.order != 0) {
      buffer_add(&held, &item, sizeof item);
    } else {
      if (has_base) put(&changes, &base);
      put_all(&changes, &held);
      base = item;
      has_base = true;
    }
  }
  if (has_base) put(&changes, &base);
  put_all(&changes, &held);
  changes_flush(&changes);
  buffer_release(&items);
  buffer_release(&held);
}
