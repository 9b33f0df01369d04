/* Words to tokens: one function for each kind of model. */
#ifndef EDGEQ_WORDS_H
#define EDGEQ_WORDS_H

#include <stdbool.h>

#include "token_list.h"
#include "tokenizer_table.h"

/* The longest pieces from the left (WordPiece). */
void word_to_pieces(const TokenizerTable *table, const WordText *word, TokenList *tokens);

/* A word as a token (WordLevel). */
void word_to_token(const TokenizerTable *table, const WordText *word, TokenList *tokens);

/* Bytes, merged pair by pair (BPE). */
void word_to_byte_pairs(const TokenizerTable *table, const WordText *word, TokenList *tokens);

/* The most likely tokens (Unigram). */
void word_to_unigram(const TokenizerTable *table, const WordText *word, TokenList *tokens);

/* Characters, merged pair by pair (BPE of SentencePiece). */
void word_to_character_pairs(const TokenizerTable *table, const WordText *word, TokenList *tokens);

/* Appends the tokens of the bytes of a part of a word, all of which stand for the part; false if the tokenizer has not all
 * of them, or does not do so. */
bool add_fallback_bytes(const TokenizerTable *table, const WordText *word, size_t start, size_t end, TokenList *tokens);

/* Appends the unknown token for a part of a word, or fails if there is none. */
void add_unknown(const TokenizerTable *table, const WordText *word, size_t start, size_t end, TokenList *tokens);

/* The token of exactly this word in a sorted list, or NO_TOKEN. */
uint32_t find_word(const TokenizerTable *table, const Word *words, size_t count, const char *word, size_t size);

#endif
