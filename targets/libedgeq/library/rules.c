#include "rules.h"

#include <string.h>

bool ends_text(const Rules *rules, int64_t token) {
  for (size_t i = 0; i < rules->generation->end_count && !rules->ignore_end; i++) {
    if (rules->generation->end_ids[i] == token) return true;
  }
  return false;
}

int64_t forced_token(const Rules *rules, size_t made) {
  if (!rules->generation->source_context) return -1;
  if ((int64_t)made + 1 == rules->most && rules->generation->forced_last >= 0) return rules->generation->forced_last;
  return made == 0 ? rules->generation->forced_first : -1;
}

static int64_t token_at(const Rules *rules, const Tokens *made, size_t at) {
  return at < rules->prefix.count ? rules->prefix.ids[at] : made->ids[at - rules->prefix.count];
}

/* Tokens that would complete a sequence that is there already. */
static size_t completions(const Rules *rules, const Tokens *made, int64_t *banned) {
  size_t length = rules->prefix.count + made->count, size = (size_t)rules->ngram_size, count = 0;
  for (size_t at = 0; at + size <= length; at++) {
    size_t same = 0;
    while (same + 1 < size &&
           token_at(rules, made, at + same) == token_at(rules, made, length + 1 - size + same)) {
      same++;
    }
    if (same + 1 == size) banned[count++] = token_at(rules, made, at + size - 1);
  }
  return count;
}

size_t banned_tokens(const Rules *rules, const Tokens *made, int64_t *banned) {
  const Generation *generation = rules->generation;
  size_t count = generation->banned_count;
  if (count > 0) memcpy(banned, generation->banned_ids, count * sizeof *banned);
  if ((int64_t)made->count < rules->fewest && !rules->ignore_end && generation->end_count > 0) {
    memcpy(banned + count, generation->end_ids, generation->end_count * sizeof *banned);
    count += generation->end_count;
  }
  return count + (rules->ngram_size > 0 ? completions(rules, made, banned + count) : 0);
}

size_t banned_room(const Rules *rules) {
  const Generation *generation = rules->generation;
  return generation->banned_count + generation->end_count + rules->prefix.count + (size_t)rules->most;
}
