/* tokenizer.bin: the bundle's tokenizer as tables, mapped and used where they lie.
 *
 * "EQTOKEN2", then place and size in bytes of every section, then the sections. All numbers are 32 bits, little
 * endian; a section is a list of records of the type named here. "EQTOKEN0" is followed by a sentence that says why
 * the tokenizer is not among those that the library knows. `targets/bundle/tokenizer/table.py` writes it. */
#ifndef EDGEQ_TOKENIZER_TABLE_H
#define EDGEQ_TOKENIZER_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "source.h"

#define NO_TOKEN UINT32_MAX

enum { WORD_PIECES, BYTE_PAIRS, WHOLE_WORDS, UNIGRAM, CHARACTER_PAIRS };                 /* TokenizerSettings.model */
enum { MAP, REPLACE, SPLIT, PREFIX_SPACE, CHARSMAP, STRIP, PREPEND, METASPACE, STEP_KINDS }; /* Step.kind */
enum { PREPENDS = 1, CUTS = 2 };                           /* what METASPACE does besides replacing spaces */
enum { ISOLATED, REMOVED };                                /* what a SPLIT does with matches */
enum { PAD, REPLACED, DECOMPOSED };                        /* CharacterMapping.kind */
enum { LEFT = 1, RIGHT = 2, SINGLE_WORD = 4, NORMALIZED = 8 }; /* AddedToken.flags */

typedef struct {
  uint32_t model, unknown, longest_word, whole_words_first, space_set, word_set;
  uint32_t byte_fallback;  /* a character without a token becomes the tokens of its bytes, if `bytes` has all */
  uint32_t fuses_unknown;  /* unknown characters that follow each other become one token */
  uint32_t drops_first_space; /* of a text that is written */
  uint32_t unknown_score[2];                     /* a double: of a character without a token, with UNIGRAM */
  uint32_t extend_set, prepend_set, control_set; /* what grapheme clusters are made of */
} TokenizerSettings;

typedef struct {
  uint32_t place, size; /* in `strings` */
} Words;

typedef struct {
  Words text;
  uint32_t token;
} Word;

typedef struct {
  uint32_t left, right, rank, result;
} Merge;

typedef struct {
  uint32_t first_range, count;
} CharacterSet;

typedef struct {
  uint32_t first, last;
} Range;

/* MAP: mappings from `a`, `b` of them, and with `c` marks are put in order. REPLACE: pattern at `a`, string `b`, `c`.
 * SPLIT: pattern at `a`, ISOLATED or REMOVED, and with `c` what does not match counts as the match. CHARSMAP: none.
 * STRIP: characters of set `c` go from the left with `a`, from the right with `b`. PREPEND: string `a`, `b`. METASPACE:
 * string `a`, `b` for a space, PREPENDS and CUTS. */
typedef struct {
  uint32_t kind, a, b, c;
} Step;

typedef struct {
  uint32_t first, last, kind;
  Words text;
} CharacterMapping;

typedef struct {
  uint32_t character, order;
} Combining;

typedef struct {
  Words text;
  uint32_t token, flags;
} AddedToken;

/* Sections in file order; counts are of records. */
typedef struct {
  const TokenizerSettings *settings;
  const uint32_t *prefix, *suffix;
  const char *strings;
  const Words *tokens;       /* bytes that a token stands for; none for special ones */
  const Word *words;         /* sorted by bytes */
  const Word *inner_words;   /* word pieces that do not start a word */
  const Merge *merges;       /* sorted by left, then right */
  const uint32_t *bytes;     /* tokens of the 256 bytes, with BYTE_PAIRS */
  const CharacterSet *sets;
  const Range *ranges;
  const uint32_t *code;      /* patterns; see pattern.h */
  const Step *normalizers, *splitters;
  const CharacterMapping *mappings; /* sorted within each MAP */
  const Combining *combining;       /* sorted */
  const AddedToken *added;
  const uint32_t *trie;   /* CHARSMAP: a double array of pieces of text (Darts-clone) */
  const char *mapped;     /* its texts, each ended by a zero byte */
  const uint32_t *scores; /* of words, with UNIGRAM: a double each */
  size_t prefix_count, suffix_count, strings_size, token_count, word_count, inner_word_count, merge_count, byte_count,
      set_count, range_count, code_size, normalizer_count, splitter_count, mapping_count, combining_count, added_count,
      trie_size, mapped_size, score_words;
} TokenizerTable;

/* Reads the table and checks that nothing in it points outside; `path` names the file. Fails if it does. If it holds a
 * reason instead, `*reason` gets it and the table is empty. */
TokenizerTable tokenizer_table(Memory *memory, Mapping file, const char *path, const char **reason);

#endif
