#include "token_texts.h"

#include <string.h>

#include "tokenizer.h"
#include "utf8.h"

/* A list of texts in one buffer. */
typedef struct {
  Buffer text;
  Buffer ends; /* size_t each */
} List;

void check_names_known(const Memory *memory, const TokenizerTable *table) {
  if (table->name_count == 0) {
    fail(memory, EDGEQ_USAGE, "the bundle does not hold the names of tokens; compile it again with a newer edgeq");
  }
  if (!table->roles->joins) {
    fail(memory, EDGEQ_UNSUPPORTED, "the decoder in the bundle's tokenizer.json is not among those that are known");
  }
}

TokenText token_name(const TokenizerTable *table, int64_t token) {
  if (token < 0 || (uint64_t)token >= table->name_count) return (TokenText){"", 0};
  Words name = table->names[token];
  return (TokenText){table->strings + name.place, name.size};
}

bool is_special(const TokenizerTable *table, int64_t token) {
  size_t low = 0, high = table->special_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (table->special[middle] < token) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < table->special_count && table->special[low] == token;
}

static size_t list_count(const List *list) { return list->ends.size / sizeof(size_t); }

static TokenText item_of(const List *list, size_t index) {
  const size_t *ends = (const size_t *)(const void *)list->ends.data;
  size_t start = index > 0 ? ends[index - 1] : 0;
  return (TokenText){ends[index] > start ? list->text.data + start : "", ends[index] - start};
}

static void end_item(List *list) { buffer_add(&list->ends, &list->text.size, sizeof list->text.size); }

/* Replaces every `from` in a text. */
static void replace_all(TokenText text, const char *from, size_t size, const char *to, Buffer *out) {
  size_t length = strlen(to);
  for (size_t at = 0; at < text.size;) {
    if (text.size - at >= size && memcmp(text.text + at, from, size) == 0) {
      buffer_add(out, to, length);
      at += size;
    } else {
      buffer_add(out, text.text + at++, 1);
    }
  }
}

/* Takes spaces before punctuation away, a rule after the other. */
static void clean_up(TokenText text, bool of_tokens, Buffer *out) {
  static const struct {
    const char *from, *to;
    bool of_tokens; /* a rule for single tokens only */
  } rules[] = {{" .", ".", false},    {" ?", "?", false},     {" !", "!", false},     {" ,", ",", false},
               {" ' ", "'", false},   {" n't", "n't", false}, {" 'm", "'m", false},   {" do not", " don't", true},
               {" 's", "'s", false},  {" 've", "'ve", false}, {" 're", "'re", false}};
  Buffer from = {.memory = out->memory};
  buffer_add(&from, text.text, text.size);
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
    if (rules[i].of_tokens && !of_tokens) continue;
    Buffer next = {.memory = out->memory};
    replace_all((TokenText){from.data, from.size}, rules[i].from, strlen(rules[i].from), rules[i].to, &next);
    buffer_release(&from);
    from = next;
  }
  buffer_add(out, from.data, from.size);
  buffer_release(&from);
}

static void join_pieces(const TokenizerTable *table, const Join *join, TokenText name, bool is_first, Buffer *out) {
  Buffer piece = {.memory = out->memory};
  bool continues = name.size >= join->b && memcmp(name.text, table->strings + join->a, join->b) == 0;
  if (!is_first && !continues) buffer_add(&piece, " ", 1);
  size_t skipped = !is_first && continues ? join->b : 0;
  buffer_add(&piece, name.text + skipped, name.size - skipped);
  if (join->c != 0) {
    clean_up((TokenText){piece.data, piece.size}, true, out);
  } else {
    buffer_add(out, piece.data, piece.size);
  }
  buffer_release(&piece);
}

/* The byte that a letter of a byte-level vocabulary stands for, -1 for other letters (GPT-2's bytes_to_unicode). */
static int byte_of_letter(uint32_t letter) {
  bool printable = (letter >= 0x21 && letter <= 0x7E) || (letter >= 0xA1 && letter <= 0xAC) || (letter >= 0xAE && letter <= 0xFF);
  if (printable) return (int)letter;
  if (letter < 0x100 || letter >= 0x100 + 68) return -1;
  uint32_t number = letter - 0x100; /* of the bytes that are not printable: 0..0x20, 0x7F..0xA0, 0xAD */
  return (int)(number <= 0x20 ? number : number <= 0x42 ? number - 0x21 + 0x7F : 0xAD);
}

static void join_letters(TokenText name, Buffer *bytes) {
  bool all = true;
  for (size_t at = 0; at < name.size; at = character_after(name.text, at)) {
    all = all && byte_of_letter(character_at(name.text, at)) >= 0;
  }
  for (size_t at = 0; all && at < name.size; at = character_after(name.text, at)) {
    char byte = (char)byte_of_letter(character_at(name.text, at));
    buffer_add(bytes, &byte, 1);
  }
  if (!all) buffer_add(bytes, name.text, name.size);
}

static void join_marks(const TokenizerTable *table, const Join *join, TokenText name, bool is_first, Buffer *out) {
  const char *mark = table->strings + join->a;
  for (size_t at = 0; at < name.size;) {
    if (name.size - at < join->b || memcmp(name.text + at, mark, join->b) != 0) {
      buffer_add(out, name.text + at++, 1);
      continue;
    }
    if (!is_first || join->c == 0) buffer_add(out, " ", 1);
    at += join->b;
  }
}

static void strip_ends(const Join *join, TokenText name, Buffer *out) {
  size_t start = 0, end = name.size;
  for (uint32_t i = 0; i < join->b && start < end && character_at(name.text, start) == join->a; i++) {
    start = character_after(name.text, start);
  }
  for (uint32_t i = 0; i < join->c && end > start && character_at(name.text, character_before(name.text, end)) == join->a; i++) {
    end = character_before(name.text, end);
  }
  buffer_add(out, name.text + start, end - start);
}

static int hex_digit(char digit) {
  return digit >= '0' && digit <= '9' ? digit - '0' : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* The byte of a name like <0x0A>, or -1. */
static int byte_of_name(TokenText name) {
  if (name.size != 6 || memcmp(name.text, "<0x", 3) != 0 || name.text[5] != '>') return -1;
  int high = hex_digit(name.text[3]), low = hex_digit(name.text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* Names of bytes that follow each other become a text if they are one, else each a replacement. */
static void flush_bytes(Buffer *bytes, List *out) {
  if (bytes->size == 0) return;
  if (is_utf8(bytes->data, bytes->size)) {
    buffer_add(&out->text, bytes->data, bytes->size);
    end_item(out);
  } else {
    for (size_t i = 0; i < bytes->size; i++) {
      buffer_add(&out->text, "\xEF\xBF\xBD", 3);
      end_item(out);
    }
  }
  bytes->size = 0;
}

static void join_byte_tokens(const List *list, List *out) {
  Buffer bytes = {.memory = out->text.memory};
  for (size_t i = 0; i < list_count(list); i++) {
    TokenText name = item_of(list, i);
    int value = byte_of_name(name);
    if (value >= 0) {
      char byte = (char)value;
      buffer_add(&bytes, &byte, 1);
      continue;
    }
    flush_bytes(&bytes, out);
    buffer_add(&out->text, name.text, name.size);
    end_item(out);
  }
  flush_bytes(&bytes, out);
  buffer_release(&bytes);
}

/* Appends bytes as text: what is no character becomes U+FFFD, once for each longest beginning of one. */
static void add_lossy(const Buffer *bytes, Buffer *out) {
  TextOutput output = {.held = {.memory = out->memory}};
  buffer_add(&output.held, bytes->data, bytes->size);
  text_output_finish(&output, out);
  buffer_release(&output.held);
}

static void take_join(const TokenizerTable *table, const Join *join, const List *list, List *out) {
  if (join->kind == JOIN_BYTE_TOKENS) {
    join_byte_tokens(list, out);
    return;
  }
  Buffer bytes = {.memory = out->text.memory};
  for (size_t i = 0; i < list_count(list); i++) {
    TokenText name = item_of(list, i);
    if (join->kind == JOIN_PIECES) join_pieces(table, join, name, i == 0, &out->text);
    if (join->kind == JOIN_MARKS) join_marks(table, join, name, i == 0, &out->text);
    if (join->kind == JOIN_STRIP) strip_ends(join, name, &out->text);
    if (join->kind == JOIN_FUSE) buffer_add(&out->text, name.text, name.size);
    if (join->kind == JOIN_BYTES) join_letters(name, &bytes);
    if (join->kind == JOIN_REPLACE) {
      char content[5] = {0};
      if (join->c != 0) put_character(content, join->c);
      replace_all(name, table->strings + join->a, join->b, content, &out->text);
    }
    if (join->kind != JOIN_FUSE && join->kind != JOIN_BYTES) end_item(out);
  }
  if (join->kind == JOIN_BYTES) add_lossy(&bytes, &out->text);
  if (join->kind == JOIN_FUSE || join->kind == JOIN_BYTES) end_item(out);
  buffer_release(&bytes);
}

static void release_list(List *list) {
  buffer_release(&list->text);
  buffer_release(&list->ends);
}

void join_names(const TokenizerTable *table, const TokenText *names, size_t count, Buffer *text) {
  Memory *memory = text->memory;
  List list = {{.memory = memory}, {.memory = memory}};
  for (size_t i = 0; i < count; i++) {
    if (table->join_count == 0 && i > 0) buffer_add(&list.text, " ", 1);
    buffer_add(&list.text, names[i].text, names[i].size);
    end_item(&list);
  }
  for (size_t i = 0; i < table->join_count; i++) {
    List next = {{.memory = memory}, {.memory = memory}};
    take_join(table, &table->joins[i], &list, &next);
    release_list(&list);
    list = next;
  }
  buffer_add(text, list.text.data, list.text.size);
  release_list(&list);
}

void join_tokens(const TokenizerTable *table, const int64_t *ids, size_t count, bool skips_special, Buffer *text) {
  Memory *memory = text->memory;
  TokenText *names = allocate(memory, count, sizeof *names);
  size_t kept = 0;
  for (size_t i = 0; i < count; i++) {
    if (skips_special && is_special(table, ids[i])) continue;
    if (ids[i] >= 0 && (uint64_t)ids[i] < table->name_count) names[kept++] = token_name(table, ids[i]);
  }
  Buffer joined = {.memory = memory};
  join_names(table, names, kept, &joined);
  if (table->roles->cleans_up) {
    clean_up((TokenText){joined.data, joined.size}, false, text);
  } else {
    buffer_add(text, joined.data, joined.size);
  }
  buffer_release(&joined);
  release(memory, names);
}
