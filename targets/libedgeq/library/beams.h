/* Beam search: the most likely texts of an encoder input, as transformers searches for them. */
#ifndef EDGEQ_BEAMS_H
#define EDGEQ_BEAMS_H

#include "rules.h"

/* A text that has ended; its score is its log-probability, divided by its length to the power of the penalty. */
typedef struct {
  double score;
  Tokens text;
} Hypothesis;

typedef struct Search Search;

Search *search_new(Memory *memory, const Settings *settings, const Rules *rules, size_t vocabulary);

/* Takes the logits [beams, vocabulary] after each open text and makes all of them one token longer. Writes for each new
 * open text the number of the old one that it continues, and its newest token. Returns false when nothing is left to
 * search. */
bool search_advance(const Memory *memory, Search *search, const float *logits, size_t *parents, int64_t *newest);

/* The best text, when nothing is left to search. */
const Hypothesis *search_best(const Search *search);

#endif
