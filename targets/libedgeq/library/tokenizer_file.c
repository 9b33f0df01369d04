#include "tokenizer_file.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "pattern.h"
#include "utf8.h"

enum { MAGIC_SIZE = 8, FEWEST_SECTIONS = 20, SECTIONS = 28 };
enum { FIRST_SYLLABLE = 0xAC00, LAST_SYLLABLE = 0xD7A3 }; /* of Hangul */

typedef struct {
  Memory *memory;
  Mapping file;
  const char *path;
  uint32_t next; /* section */
} Reader;

static void check(const Reader *reader, bool fits, const char *what) {
  if (fits) return;
  fail(reader->memory, EDGEQ_DAMAGED, "%s is damaged: %s; copy or compile the bundle again", reader->path, what);
}

/* The next section as records of `size` bytes. */
static const void *section(Reader *reader, size_t size, size_t *count) {
  uint32_t at[2];
  memcpy(at, reader->file.data + MAGIC_SIZE + reader->next++ * sizeof at, sizeof at);
  bool fits =
      at[0] % 4 == 0 && at[0] <= reader->file.size && at[1] <= reader->file.size - at[0] && at[1] % size == 0;
  check(reader, fits, "a section lies outside of it");
  *count = at[1] / size;
  return reader->file.data + at[0];
}

static bool is_string(const TokenizerTable *table, Words text) {
  return text.place <= table->strings_size && text.size <= table->strings_size - text.place;
}

static bool is_character(uint32_t code) { return code < 0xD800 || (code > 0xDFFF && code < 0x110000); }

static bool is_text(const TokenizerTable *table, Words text) {
  return is_string(table, text) && is_utf8(table->strings + text.place, text.size);
}

/* Normalizers make a text of a text; splitters make spans of spans: neither can run a step of the other kind. */
static void check_steps(const TokenizerTable *table, const Step *steps, size_t count, bool normalizing,
                        const Reader *reader) {
  for (size_t i = 0; i < count; i++) {
    const Step *step = &steps[i];
    bool splits = step->kind == SPLIT || step->kind == PREFIX_SPACE || step->kind == METASPACE;
    bool fits = step->kind < STEP_KINDS && normalizing == !splits;
    check(reader, fits, "a step is of another kind than its list");
    if (step->kind == MAP || step->kind == COMPOSE) fits = step->a <= table->mapping_count && step->b <= table->mapping_count - step->a;
    if (step->kind == REPLACE) fits = step->a < table->code_size && is_text(table, (Words){step->b, step->c});
    if (step->kind == SPLIT) fits = step->a < table->code_size && step->b <= REMOVED;
    if (step->kind == STRIP) fits = step->c < table->set_count;
    if (step->kind == PREPEND || step->kind == METASPACE) fits = step->b > 0 && is_text(table, (Words){step->a, step->b});
    check(reader, fits, "a step refers to what is not there");
  }
}

static void check_words(const TokenizerTable *table, const Word *words, size_t count, const Reader *reader) {
  for (size_t i = 0; i < count; i++) check(reader, is_string(table, words[i].text), "a word lies outside of it");
}

static void check_characters(const TokenizerTable *table, const Reader *reader) {
  for (size_t i = 0; i < table->set_count; i++) {
    CharacterSet set = table->sets[i];
    bool fits = set.first_range <= table->range_count && set.count <= table->range_count - set.first_range;
    check(reader, fits, "a set of characters lies outside of it");
  }
  for (size_t i = 0; i < table->mapping_count; i++) {
    const CharacterMapping *mapping = &table->mappings[i];
    bool fits = mapping->kind <= DECOMPOSED && is_text(table, mapping->text);
    if (mapping->kind == DECOMPOSED) fits = mapping->first >= FIRST_SYLLABLE && mapping->last <= LAST_SYLLABLE;
    check(reader, fits, "a mapping lies outside of it");
  }
  const TokenizerSettings *settings = table->settings;
  const uint32_t sets[] = {settings->space_set, settings->word_set, settings->extend_set, settings->prepend_set,
                           settings->control_set};
  for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) check(reader, sets[i] < table->set_count, "it lacks a set");
}

static void check_frame(const FrameItem *items, size_t count, size_t texts, const Reader *reader) {
  size_t found[FRAME_KINDS] = {0};
  for (size_t i = 0; i < count; i++) {
    check(reader, items[i].kind < FRAME_KINDS && items[i].type <= 1, "a frame holds what it cannot hold");
    found[items[i].kind]++;
  }
  bool fits = found[FRAME_FIRST] == 1 && found[FRAME_SECOND] == texts - 1;
  check(reader, fits || (texts == 2 && count == 0), "a frame does not hold each text once");
}

/* What version 3 brought. */
static void check_names(const TokenizerTable *table, const Reader *reader) {
  for (size_t i = 0; i < table->name_count; i++) {
    check(reader, is_text(table, table->names[i]), "a name of a token lies outside of it");
  }
  for (size_t i = 1; i < table->special_count; i++) {
    check(reader, table->special[i - 1] < table->special[i], "its special tokens are not in order");
  }
  for (size_t i = 0; i < table->join_count; i++) {
    const Join *join = &table->joins[i];
    bool fits = join->kind < JOIN_KINDS;
    if (join->kind <= JOIN_REPLACE && join->kind != JOIN_BYTES) fits = join->b > 0 && is_text(table, (Words){join->a, join->b});
    if (join->kind == JOIN_REPLACE) fits = fits && is_character(join->c);
    check(reader, fits, "a step of its decoder refers to what is not there");
  }
  for (size_t i = 0; i < table->lower_count; i++) {
    check(reader, is_text(table, table->lower[i].text), "a letter in lower case lies outside of it");
  }
  for (size_t i = 0; i < table->composition_count; i++) {
    check(reader, is_character(table->compositions[i].both), "what two characters become is no character");
  }
  check_frame(table->single, table->single_count, 1, reader);
  check_frame(table->pair, table->pair_count, 2, reader);
}

static void check_table(const TokenizerTable *table, const Reader *reader) {
  const TokenizerSettings *settings = table->settings;
  check(reader, settings->model < MODEL_KINDS, "it is of an unknown kind");
  bool needs_bytes = settings->model == BYTE_PAIRS || settings->byte_fallback != 0;
  check(reader, !needs_bytes || table->byte_count == 256, "it lacks bytes");
  bool has_scores = settings->model == UNIGRAM || settings->model == SENTENCE_PIECES;
  check(reader, !has_scores || table->score_words / 2 == table->word_count, "it lacks scores");
  bool ends = table->mapped_size == 0 || table->mapped[table->mapped_size - 1] == 0;
  check(reader, ends && is_utf8(table->mapped, table->mapped_size), "the texts of its map are no texts");
  check_characters(table, reader);
  check_steps(table, table->normalizers, table->normalizer_count, true, reader);
  check_steps(table, table->splitters, table->splitter_count, false, reader);
  check_words(table, table->words, table->word_count, reader);
  check_words(table, table->inner_words, table->inner_word_count, reader);
  for (size_t i = 0; i < table->token_count; i++) {
    check(reader, is_string(table, table->tokens[i]), "a token lies outside of it");
  }
  for (size_t i = 0; i < table->added_count; i++) {
    Words text = table->added[i].text;
    bool encloses = (table->added[i].flags & ENCLOSES) != 0;
    bool fits = is_string(table, text) && text.size > 0 && (!encloses || text.size % 2 == 0);
    check(reader, fits, "an added token lies outside of it");
  }
  if (table->roles != NULL) check_names(table, reader);
  check(reader, pattern_fits(reader->memory, table), "a pattern refers to what is not there");
}

/* Why the compiler made no table, as a text of its own. */
static const char *copy_reason(Memory *memory, Mapping file) {
  size_t size = file.size - MAGIC_SIZE < 512 ? file.size - MAGIC_SIZE : 512;
  char *reason = allocate(memory, size + 1, 1);
  memcpy(reason, file.data + MAGIC_SIZE, size);
  return reason;
}

/* In files without frames: what is put before and after a text. */
static void make_frame(TokenizerTable *table, Memory *memory) {
  FrameItem *items = allocate(memory, table->prefix_count + 1 + table->suffix_count, sizeof *items);
  for (size_t i = 0; i < table->prefix_count; i++) items[i].token = table->prefix[i];
  items[table->prefix_count].kind = FRAME_FIRST;
  for (size_t i = 0; i < table->suffix_count; i++) items[table->prefix_count + 1 + i].token = table->suffix[i];
  table->single = items;
  table->single_count = table->prefix_count + 1 + table->suffix_count;
}

static void read_names(TokenizerTable *table, Reader *reader) {
  size_t one = 0;
  table->roles = section(reader, sizeof *table->roles, &one);
  check(reader, one == 1, "it lacks the parts that tokens play");
  table->names = section(reader, sizeof *table->names, &table->name_count);
  table->special = section(reader, sizeof *table->special, &table->special_count);
  table->single = section(reader, sizeof *table->single, &table->single_count);
  table->pair = section(reader, sizeof *table->pair, &table->pair_count);
  table->joins = section(reader, sizeof *table->joins, &table->join_count);
  table->lower = section(reader, sizeof *table->lower, &table->lower_count);
  table->compositions = section(reader, sizeof *table->compositions, &table->composition_count);
}

TokenizerTable read_tokenizer_table(Memory *memory, Mapping file, const char *path, const char **reason) {
  TokenizerTable table = {0};
  Reader reader = {memory, file, path, 0};
  size_t one = 0;
  if (file.size >= MAGIC_SIZE && memcmp(file.data, "EQTOKEN0", MAGIC_SIZE) == 0) {
    *reason = copy_reason(memory, file);
    return table;
  }
  bool names = file.size >= MAGIC_SIZE && memcmp(file.data, "EQTOKEN3", MAGIC_SIZE) == 0;
  bool fits = names || (file.size >= MAGIC_SIZE && memcmp(file.data, "EQTOKEN2", MAGIC_SIZE) == 0);
  fits = fits && file.size >= MAGIC_SIZE + (names ? SECTIONS : FEWEST_SECTIONS) * 8;
  check(&reader, fits, "it is no table of a tokenizer");
  table.settings = section(&reader, sizeof *table.settings, &one);
  check(&reader, one == 1, "it lacks settings");
  table.prefix = section(&reader, sizeof *table.prefix, &table.prefix_count);
  table.suffix = section(&reader, sizeof *table.suffix, &table.suffix_count);
  table.strings = section(&reader, 1, &table.strings_size);
  table.tokens = section(&reader, sizeof *table.tokens, &table.token_count);
  table.words = section(&reader, sizeof *table.words, &table.word_count);
  table.inner_words = section(&reader, sizeof *table.inner_words, &table.inner_word_count);
  table.merges = section(&reader, sizeof *table.merges, &table.merge_count);
  table.bytes = section(&reader, sizeof *table.bytes, &table.byte_count);
  table.sets = section(&reader, sizeof *table.sets, &table.set_count);
  table.ranges = section(&reader, sizeof *table.ranges, &table.range_count);
  table.code = section(&reader, sizeof *table.code, &table.code_size);
  table.normalizers = section(&reader, sizeof *table.normalizers, &table.normalizer_count);
  table.splitters = section(&reader, sizeof *table.splitters, &table.splitter_count);
  table.mappings = section(&reader, sizeof *table.mappings, &table.mapping_count);
  table.combining = section(&reader, sizeof *table.combining, &table.combining_count);
  table.added = section(&reader, sizeof *table.added, &table.added_count);
  table.trie = section(&reader, sizeof *table.trie, &table.trie_size);
  table.mapped = section(&reader, 1, &table.mapped_size);
  table.scores = section(&reader, sizeof *table.scores, &table.score_words);
  if (names) {
    read_names(&table, &reader);
  } else {
    make_frame(&table, memory);
  }
  check_table(&table, &reader);
  return table;
}
