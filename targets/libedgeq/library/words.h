/* Words to tokens: one function for each kind of model. Ids are appended as int64_t. */
#ifndef EDGEQ_WORDS_H
#define EDGEQ_WORDS_H

#include <stdbool.h>

#include "buffer.h"
#include "tokenizer_table.h"

/* The longest pieces from the left (WordPiece). */
void word_to_pieces(const TokenizerTable *table, const char *word, size_t size, Buffer *ids);

/* A word as a token (WordLevel). */
void word_to_token(const TokenizerTable *table, const char *word, size_t size, Buffer *ids);

/* Bytes, merged pair by pair (BPE). */
void word_to_byte_pairs(const TokenizerTable *table, const char *word, size_t size, Buffer *ids);

/* The most likely tokens (Unigram). */
void word_to_unigram(const TokenizerTable *table, const char *word, size_t size, Buffer *ids);

/* Characters, merged pair by pair (BPE of SentencePiece). */
void word_to_character_pairs(const TokenizerTable *table, const char *word, size_t size, Buffer *ids);

/* Appends the tokens of the bytes of a piece; false if the tokenizer has not all of them, or does not do so. */
bool add_fallback_bytes(const TokenizerTable *table, const char *piece, size_t size, Buffer *ids);

/* Appends the unknown token, or fails if there is none. */
void add_unknown(const TokenizerTable *table, const char *word, size_t size, Buffer *ids);

/* The token of exactly this word in a sorted list, or NO_TOKEN. */
uint32_t find_word(const TokenizerTable *table, const Word *words, size_t count, const char *word, size_t size);

void add_id(Buffer *ids, uint32_t token);

#endif
