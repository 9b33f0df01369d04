/* Which tokens may not come next, and which one must, whatever the logits say. */
#ifndef EDGEQ_RULES_H
#define EDGEQ_RULES_H

#include "model.h"

/* Token ids of one text or of a part of it. */
typedef struct {
  int64_t *ids;
  size_t count;
} Tokens;

typedef struct {
  const Generation *generation;
  Tokens prefix;     /* tokens before the first new one: the prompt, or the token that starts a text */
  int64_t most;      /* new tokens */
  int64_t fewest;    /* new tokens before one may end the text */
  int64_t ngram_size; /* no sequence of so many tokens comes twice; 0 allows all */
  bool ignore_end;   /* no token ends a text */
} Rules;

/* Whether `token` ends a text. */
bool ends_text(const Rules *rules, int64_t token);

/* The token that must follow `made` new ones, or -1 if one may be chosen. */
int64_t forced_token(const Rules *rules, size_t made);

/* Writes to `banned` the tokens that must not follow the new tokens `made`, some perhaps twice, and returns how many;
 * there is room for banned_room(rules) of them. */
size_t banned_tokens(const Rules *rules, const Tokens *made, int64_t *banned);
size_t banned_room(const Rules *rules);

#endif
