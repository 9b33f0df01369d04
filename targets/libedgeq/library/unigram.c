#include <stdbool.h>
#include <string.h>

#include "utf8.h"
#include "words.h"

#define NOWHERE SIZE_MAX

/* The best way to a place in a word: the sum of scores, and the token that ends there. */
typedef struct {
  double score;
  size_t start; /* of the token; NOWHERE if no way is known */
  uint32_t token;
} Way;

/* Words that begin with the bytes that were read: a part of the sorted list. */
typedef struct {
  size_t low, high;
} Candidates;

/* Of equal ways the first one stays; the package sentencepiece adds in 32 bits. */
static void take_way(const TokenizerTable *table, Way *way, double sum, size_t start, uint32_t token) {
  double score = table->settings->model == SENTENCE_PIECES ? (double)(float)sum : sum;
  if (way->start == NOWHERE || score > way->score) *way = (Way){score, start, token};
}

/* The token of a character that no token stands for: with SENTENCE_PIECES none, since that may be the name of one. */
static uint32_t unknown_of(const TokenizerTable *table) {
  return table->settings->model == SENTENCE_PIECES ? NO_TOKEN : table->settings->unknown;
}

/* The first of the candidates whose byte at `depth` is `least` or more. */
static size_t first_with(const TokenizerTable *table, Candidates of, size_t depth, unsigned least) {
  while (of.low < of.high) {
    size_t middle = of.low + (of.high - of.low) / 2;
    Words text = table->words[middle].text;
    if (text.size > depth && (unsigned char)table->strings[text.place + depth] >= least) {
      of.high = middle;
    } else {
      of.low = middle + 1;
    }
  }
  return of.low;
}

static double score_of(const TokenizerTable *table, size_t word) {
  double score;
  memcpy(&score, table->scores + 2 * word, sizeof score);
  return score;
}

/* Continues the way to `start` by every token that begins there, and by the unknown one if no token is one character. */
static void continue_way(const TokenizerTable *table, const char *word, size_t size, Way *ways, size_t start) {
  size_t character = character_after(word, start) - start;
  bool is_known = false;
  Candidates fit = {0, table->word_count};
  for (size_t depth = 0; start + depth < size; depth++) {
    unsigned byte = (unsigned char)word[start + depth];
    fit = (Candidates){first_with(table, fit, depth, byte), first_with(table, fit, depth, byte + 1)};
    if (fit.low >= fit.high) break;
    if (table->words[fit.low].text.size != depth + 1) continue;
    take_way(table, &ways[start + depth + 1], score_of(table, fit.low) + ways[start].score, start, table->words[fit.low].token);
    if (depth + 1 == character) is_known = true;
  }
  if (is_known) return;
  double unknown;
  memcpy(&unknown, table->settings->unknown_score, sizeof unknown);
  take_way(table, &ways[start + character], unknown + ways[start].score, start, unknown_of(table));
}

static void add_piece(const TokenizerTable *table, const WordText *word, size_t start, size_t end, TokenList *tokens) {
  uint32_t token = find_word(table, table->words, table->word_count, word->text + start, end - start);
  if (token == NO_TOKEN) {
    token = find_word(table, table->inner_words, table->inner_word_count, word->text + start, end - start);
  }
  if (token != NO_TOKEN) {
    add_token(tokens, word, token, start, end);
  } else if (!add_fallback_bytes(table, word, start, end, tokens)) {
    add_unknown(table, word, start, end, tokens);
  }
}

void word_to_unigram(const TokenizerTable *table, const WordText *word, TokenList *tokens) {
  Memory *memory = tokens->ids.memory;
  size_t size = word->size;
  Way *ways = allocate(memory, size + 1, sizeof *ways);
  size_t *starts = allocate(memory, size + 1, sizeof *starts);
  for (size_t i = 0; i <= size; i++) ways[i].start = NOWHERE;
  for (size_t at = 0; at < size; at = character_after(word->text, at)) {
    continue_way(table, word->text, size, ways, at);
  }
  /* From the end, pieces without a token that follow each other become one. */
  size_t count = 0;
  bool was_unknown = false;
  for (size_t end = size; end > 0; end = ways[end].start) {
    bool is_unknown = ways[end].token == unknown_of(table);
    if (is_unknown && was_unknown) count--;
    starts[count++] = ways[end].start;
    was_unknown = is_unknown;
  }
  for (size_t i = count; i > 0; i--) add_piece(table, word, starts[i - 1], i > 1 ? starts[i - 2] : size, tokens);
  release(memory, starts);
  release(memory, ways);
}
