#include <stdbool.h>
#include <string.h>

#include "tokenizer.h"
#include "utf8.h"

static const char REPLACEMENT[] = "\xEF\xBF\xBD"; /* U+FFFD */

/* How many of the bytes, which are no whole character, could begin one; 0 if the first cannot. */
static size_t beginning(const char *text, size_t left) {
  static const char *const endings[] = {"\x80", "\x80\x80", "\x80\x80\x80", "\xBF", "\xBF\x80", "\xBF\x80\x80"};
  size_t longest = 0;
  for (size_t size = 1; size <= left && size < 4; size++) {
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
      char tried[8];
      size_t ending = strlen(endings[i]);
      memcpy(tried, text, size);
      memcpy(tried + size, endings[i], ending);
      if (character_size(tried, size + ending) == size + ending) longest = size;
    }
  }
  return longest;
}

static void convert(TextOutput *output, bool is_last, Buffer *text) {
  Buffer *held = &output->held;
  size_t at = 0, size_held = held->size;
  /* Space at the end is kept until something follows it; bytes without a table are a part of a text. */
  bool drops_space = output->table != NULL && output->table->settings->drops_first_space == DROPS_ALL_SPACE;
  while (drops_space && size_held > 0 && held->data[size_held - 1] == ' ') size_held--;
  while (at < size_held) {
    size_t left = size_held - at, size = character_size(held->data + at, left);
    if (size > 0) {
      buffer_add(text, held->data + at, size);
      at += size;
      continue;
    }
    size_t begun = beginning(held->data + at, left);
    if (begun == left && !is_last) break; /* the rest of the character may come */
    buffer_add(text, REPLACEMENT, sizeof REPLACEMENT - 1);
    at += begun > 0 ? begun : 1;
  }
  if (at > 0) memmove(held->data, held->data + at, held->size - at);
  held->size -= at;
}

void text_output_add(TextOutput *output, int64_t token, Buffer *text) {
  const TokenizerTable *table = output->table;
  if (token < 0 || (uint64_t)token >= table->token_count) return; /* the model may have more than its tokenizer */
  Words bytes = table->tokens[token];
  if (bytes.size > 0 && !output->has_begun) {
    uint32_t drops = table->settings->drops_first_space;
    size_t most = drops == DROPS_ALL_SPACE ? bytes.size : drops != 0;
    for (; most > 0 && bytes.size > 0 && table->strings[bytes.place] == ' '; most--) {
      bytes.place++;
      bytes.size--;
    }
    output->has_begun = drops != DROPS_ALL_SPACE || bytes.size > 0;
  }
  buffer_add(&output->held, table->strings + bytes.place, bytes.size);
  convert(output, false, text);
}

void text_output_finish(TextOutput *output, Buffer *text) {
  convert(output, true, text);
  output->held.size = 0;
}
