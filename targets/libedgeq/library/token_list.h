/* Tokens of a text in their order, and where each comes from. */
#ifndef EDGEQ_TOKEN_LIST_H
#define EDGEQ_TOKEN_LIST_H

#include "traced.h"

/* Where a token comes from. */
typedef struct {
  Place place;
  uint32_t word;              /* tokens of one word have the same number */
  uint32_t leading, trailing; /* space characters at its ends */
} TokenOrigin;

typedef struct {
  Buffer ids;     /* int64_t each */
  Buffer origins; /* TokenOrigin each; nothing if nobody asks for them */
  bool is_traced;
  uint32_t words; /* that were begun */
} TokenList;

/* A word, and where its bytes come from: NULL if nobody asks. */
typedef struct {
  const char *text;
  size_t size;
  const Place *places;
} WordText;

TokenList token_list(Memory *memory, bool is_traced);

/* Appends a token for the bytes from `start` to `end` of a word. */
void add_token(TokenList *list, const WordText *word, uint32_t token, size_t start, size_t end);

/* Appends a token with what is known of it. */
void add_origin(TokenList *list, uint32_t token, const TokenOrigin *origin);

size_t token_count(const TokenList *list);

/* Forgets all tokens but the first `count`. */
void keep_tokens(TokenList *list, size_t count);

#endif
