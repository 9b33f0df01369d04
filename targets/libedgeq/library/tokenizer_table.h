/* tokenizer.bin: the bundle's tokenizer as tables, mapped and used where they lie.
 *
 * "EQTOKEN3", then place and size in bytes of every section, then the sections. All numbers are 32 bits, little
 * endian; a section is a list of records of the type named here. "EQTOKEN2" has the first
 * 20 of them only: such a tokenizer knows neither pairs nor the names of its tokens. "EQTOKEN0" is followed by a sentence
 * that says why the tokenizer is not among those that the library knows. `targets/bundle/tokenizer/table.py` writes it. */
#ifndef EDGEQ_TOKENIZER_TABLE_H
#define EDGEQ_TOKENIZER_TABLE_H

#include <stddef.h>
#include <stdint.h>

#define NO_TOKEN UINT32_MAX

/* TokenizerSettings.model; SENTENCE_PIECES is UNIGRAM as the package sentencepiece computes it: sums in 32 bits, and of
 * unknown characters that follow each other a token of that name, if there is one among the `inner_words`. */
enum { WORD_PIECES, BYTE_PAIRS, WHOLE_WORDS, UNIGRAM, CHARACTER_PAIRS, SENTENCE_PIECES, MODEL_KINDS };
enum { MAP, REPLACE, SPLIT, PREFIX_SPACE, CHARSMAP, STRIP, PREPEND, METASPACE, COMPOSE, STEP_KINDS }; /* Step.kind */
enum { PREPENDS = 1, CUTS = 2, AT_START = 4 }; /* what METASPACE does besides replacing spaces; AT_START: PREPENDS only there */
enum { ISOLATED, REMOVED };                                /* what a SPLIT does with matches */
enum { PAD, REPLACED, DECOMPOSED };                        /* CharacterMapping.kind */
enum { FRAME_TOKEN, FRAME_FIRST, FRAME_SECOND, FRAME_KINDS };  /* FrameItem.kind */
enum { JOIN_PIECES, JOIN_BYTES, JOIN_MARKS, JOIN_REPLACE, JOIN_BYTE_TOKENS, JOIN_FUSE, JOIN_STRIP, JOIN_KINDS }; /* Join.kind */
/* AddedToken.flags. BEGINS: is looked for at the beginning of a text only, or behind another added token. ENCLOSES: the
 * first half of the text opens it, the second one closes it, whatever stands between. */
enum { LEFT = 1, RIGHT = 2, SINGLE_WORD = 4, NORMALIZED = 8, BEGINS = 16, ENCLOSES = 32 };

enum { DROPS_ALL_SPACE = 2 }; /* TokenizerSettings.drops_first_space */

typedef struct {
  uint32_t model, unknown, longest_word, whole_words_first, space_set, word_set;
  uint32_t byte_fallback;  /* a character without a token becomes the tokens of its bytes, if `bytes` has all */
  uint32_t fuses_unknown;  /* unknown characters that follow each other become one token */
  uint32_t drops_first_space; /* of a text that is written; DROPS_ALL_SPACE: all at both ends */
  uint32_t unknown_score[2];                     /* a double: of a character without a token, with scores */
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
 * SPLIT: pattern at `a`, ISOLATED or REMOVED, and with `c` what does not match counts as the match. CHARSMAP: with `a` the longest
 * pieces are looked up, with 0 clusters and characters.
 * STRIP: characters of set `c` go from the left with `a`, from the right with `b`. PREPEND: string `a`, `b`. METASPACE:
 * string `a`, `b` for a space, PREPENDS and so on. COMPOSE: characters become the parts that mappings from `a`, `b` of them,
 * say, and then parts become one where they can. */
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

/* Two characters that become one. */
typedef struct {
  uint32_t first, second, both;
} Composition;

typedef struct {
  Words text;
  uint32_t token, flags;
} AddedToken;

/* What stands in a row that the model reads: a special token, or the tokens of the first or the second text. */
typedef struct {
  uint32_t kind, token, type;
} FrameItem;

/* How the names of tokens become text, a step after the other, on a list of them. JOIN_PIECES: prefix `a`, `b` of pieces
 * inside words, and with `c` spaces before punctuation go. JOIN_BYTES: letters stand for bytes. JOIN_MARKS: string `a`, `b`
 * for a space, and with `c` none at the beginning. JOIN_REPLACE: string `a`, `b` becomes character `c`, 0 is none.
 * JOIN_BYTE_TOKENS: names like <0x0A> are bytes. JOIN_FUSE: all become one. JOIN_STRIP: character `a` goes from each
 * beginning at most `b` times, from each end `c` times. */
typedef struct {
  uint32_t kind, a, b, c;
} Join;

/* Tokens with a part to play, NO_TOKEN where there is none, and how places and texts of tokens are counted. */
typedef struct {
  uint32_t mask, unknown, padding, classes;
  uint32_t trims;        /* the place of a token leaves out spaces at its ends */
  uint32_t adds_space;   /* but not the first one of a text, which may have been put there */
  uint32_t knows_words;  /* a token that is shorter or longer than its text continues a word */
  uint32_t joins;        /* texts can be made of tokens: by the steps, or with a space between if there are none */
  uint32_t cleans_up;    /* a whole text of tokens loses spaces before punctuation */
  uint32_t second_first; /* of a question and a context, the context comes first */
} TokenRoles;

/* Sections in file order; counts are of records. */
typedef struct {
  const TokenizerSettings *settings;
  const uint32_t *prefix, *suffix;
  const char *strings;
  const Words *tokens;       /* bytes that a token stands for; none for special ones */
  const Word *words;         /* sorted by bytes */
  const Word *inner_words;   /* word pieces that do not start a word; see SENTENCE_PIECES */
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
  const uint32_t *scores; /* of words, with UNIGRAM and SENTENCE_PIECES: a double each */
  const TokenRoles *roles; /* NULL in a file that has 20 sections */
  const Words *names;      /* of every token, special ones too */
  const uint32_t *special; /* tokens that are left out of texts, sorted */
  const FrameItem *single, *pair;
  const Join *joins;
  const CharacterMapping *lower; /* characters to lower case, sorted; for models that compare texts */
  const Composition *compositions; /* sorted by first, then second */
  size_t prefix_count, suffix_count, strings_size, token_count, word_count, inner_word_count, merge_count, byte_count,
      set_count, range_count, code_size, normalizer_count, splitter_count, mapping_count, combining_count, added_count,
      trie_size, mapped_size, score_words, name_count, special_count, single_count, pair_count, join_count, lower_count,
      composition_count;
} TokenizerTable;

#endif
