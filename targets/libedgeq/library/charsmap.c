#include "charsmap.h"

#include <stdbool.h>
#include <string.h>

#include "changes.h"
#include "characters.h"
#include "utf8.h"

enum { CLUSTER_BYTES = 6 }; /* clusters of fewer are looked up as a whole */

/* A unit of the double array: label and whether it is a leaf's value in the lowest 8 bits and the highest, whether a leaf
 * follows in bit 8, and the distance to what follows. */
static uint32_t label_of(uint32_t unit) {
  return unit & 0x800000FFu;
}

static uint32_t distance(uint32_t unit) {
  return (unit >> 10) << ((unit & 0x200u) >> 6);
}

/* What the shortest piece that a text begins with becomes, or with `length` the longest, whose bytes are counted there;
 * NULL if it begins with none. */
static const char *mapped(const TokenizerTable *table, const char *text, size_t size, size_t *length,
                          const Memory *memory) {
  const char *found = NULL;
  if (table->trie_size == 0) return NULL;
  uint32_t node = distance(table->trie[0]);
  for (size_t i = 0; i < size && text[i] != 0; i++) {
    uint32_t byte = (unsigned char)text[i];
    node ^= byte;
    if (node >= table->trie_size || label_of(table->trie[node]) != byte) return found;
    uint32_t unit = table->trie[node];
    node ^= distance(unit);
    if ((unit & 0x100u) == 0) continue;
    size_t place = node < table->trie_size ? table->trie[node] & 0x7FFFFFFFu : table->mapped_size;
    if (place >= table->mapped_size || (place > 0 && table->mapped[place - 1] != 0)) {
      fail(memory, EDGEQ_DAMAGED, "the bundle's tokenizer is damaged: a text that its map names is not there; "
                                  "copy or compile the bundle again");
    }
    found = table->mapped + place;
    if (length == NULL) return found;
    *length = i + 1;
  }
  return found;
}

/* Hangul: leading consonants, vowels, trailing consonants, and syllables without and with one (Unicode, annex 29). */
typedef enum { NO_HANGUL, LEADING, VOWEL, TRAILING, OPEN, CLOSED } Hangul;

static Hangul hangul(uint32_t c) {
  if ((c >= 0x1100 && c <= 0x115F) || (c >= 0xA960 && c <= 0xA97C)) return LEADING;
  if ((c >= 0x1160 && c <= 0x11A7) || (c >= 0xD7B0 && c <= 0xD7C6)) return VOWEL;
  if ((c >= 0x11A8 && c <= 0x11FF) || (c >= 0xD7CB && c <= 0xD7FB)) return TRAILING;
  if (c < 0xAC00 || c > 0xD7A3) return NO_HANGUL;
  return (c - 0xAC00) % 28 == 0 ? OPEN : CLOSED;
}

static bool joins_hangul(Hangul left, Hangul right) {
  if (left == LEADING) return right == LEADING || right == VOWEL || right == OPEN || right == CLOSED;
  if (left == VOWEL || left == OPEN) return right == VOWEL || right == TRAILING;
  return (left == TRAILING || left == CLOSED) && right == TRAILING;
}

/* Whether two neighbouring characters are of one cluster. */
static bool joins(const TokenizerTable *table, uint32_t left, uint32_t right) {
  const TokenizerSettings *sets = table->settings;
  if (left == '\r' && right == '\n') return true;
  if (set_has(table, sets->control_set, left) || set_has(table, sets->control_set, right)) return false;
  if (set_has(table, sets->extend_set, right) || set_has(table, sets->prepend_set, left)) return true;
  return joins_hangul(hangul(left), hangul(right));
}

static size_t cluster_end(const TokenizerTable *table, const char *text, size_t size, size_t at) {
  size_t end = character_after(text, at);
  while (end < size && joins(table, character_at(text, at), character_at(text, end))) {
    at = end;
    end = character_after(text, end);
  }
  return end;
}

static size_t characters_in(const char *text, size_t size) {
  size_t count = 0;
  for (size_t at = 0; at < size; at = character_after(text, at)) count++;
  return count;
}

/* Puts `image` in the place of `replaced` characters of the text. */
static void put_image(Changes *changes, const char *image, size_t replaced) {
  size_t size = strlen(image), count = characters_in(image, size), number = 0;
  for (size_t at = 0, end; at < size; at = end, number++) {
    end = character_after(image, at);
    changes_put(changes, image + at, end - at, number >= replaced ? 1 : 0);
  }
  if (count < replaced) changes_leave_out(changes, replaced - count);
}

void map_clusters(const TokenizerTable *table, const Traced *given, Traced *out) {
  const char *text = given->text.data;
  const Memory *memory = given->text.memory;
  size_t size = given->text.size;
  Changes changes = {.text = given, .out = out};
  for (size_t at = 0; at < size;) {
    size_t end = cluster_end(table, text, size, at);
    const char *image = end - at < CLUSTER_BYTES ? mapped(table, text + at, end - at, NULL, memory) : NULL;
    if (image != NULL) {
      put_image(&changes, image, characters_in(text + at, end - at));
      at = end;
      continue;
    }
    while (at < end) {
      size_t after = character_after(text, at);
      image = mapped(table, text + at, after - at, NULL, memory);
      if (image != NULL) {
        put_image(&changes, image, 1);
      } else {
        changes_put(&changes, text + at, after - at, 0);
      }
      at = after;
    }
  }
  changes_flush(&changes);
}

void map_longest(const TokenizerTable *table, const Traced *given, Traced *out) {
  const char *text = given->text.data;
  size_t size = given->text.size;
  Changes changes = {.text = given, .out = out};
  for (size_t at = 0; at < size;) {
    size_t length = 0;
    const char *image = mapped(table, text + at, size - at, &length, given->text.memory);
    size_t end = image != NULL ? at + length : character_after(text, at);
    /* A piece that ends inside a character is in no map that was made of texts. */
    while (image != NULL && end < size && ((unsigned char)text[end] & 0xC0u) == 0x80u) end++;
    if (image != NULL) {
      put_image(&changes, image, characters_in(text + at, end - at));
    } else {
      changes_put(&changes, text + at, end - at, 0);
    }
    at = end;
  }
  changes_flush(&changes);
}
