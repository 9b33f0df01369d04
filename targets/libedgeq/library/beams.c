#include "beams.h"

#include <math.h>
#include <string.h>

#include "numerics.h"

/* Score of beams that do not exist yet: far below any real one, and finite. */
static const double IMPOSSIBLE = -1e9;

struct Search {
  Beams beams;
  const Rules *rules;
  double penalty;
  bool renormalizes;
  size_t vocabulary, candidate_count, finished_count;
  Hypothesis *running;    /* as many as beams; scores are not divided by anything */
  Hypothesis *candidates; /* longer ones to choose from, the most likely first */
  Hypothesis *finished;   /* the best, at most as many as beams and then as many new ones */
  double *totals;         /* [beams, vocabulary] */
  size_t *places;
  bool *seen;
  int64_t *banned;
  size_t *order;  /* candidates, those that may be continued first */
  double *scores;
};

static Hypothesis *new_texts(Memory *memory, size_t count, size_t room) {
  Hypothesis *texts = allocate(memory, count, sizeof *texts);
  for (size_t i = 0; i < count; i++) texts[i].text.ids = allocate(memory, room, sizeof *texts[i].text.ids);
  return texts;
}

Search *search_new(Memory *memory, const Settings *settings, const Rules *rules, size_t vocabulary) {
  const Beams *beams = &settings->beams;
  Search *search = allocate(memory, 1, sizeof *search);
  size_t count = (size_t)beams->count, room = (size_t)rules->most;
  size_t ends = rules->ignore_end ? 0 : rules->generation->end_count;
  /* Even if every beam's most likely continuations end, enough others are left to go on with. */
  size_t wanted = (ends + 1 > 2 ? ends + 1 : 2) * count;
  *search = (Search){.beams = *beams,
                     .rules = rules,
                     .penalty = settings->sampling.repetition_penalty,
                     .renormalizes = settings->renormalizes,
                     .vocabulary = vocabulary};
  search->candidate_count = wanted < count * vocabulary ? wanted : count * vocabulary;
  search->running = new_texts(memory, count, room);
  search->candidates = new_texts(memory, search->candidate_count, room);
  search->finished = new_texts(memory, 2 * count, room);
  search->totals = allocate(memory, count * vocabulary, sizeof *search->totals);
  search->places = allocate(memory, search->candidate_count, sizeof *search->places);
  search->seen = allocate(memory, vocabulary, sizeof *search->seen);
  search->banned = allocate(memory, banned_room(rules), sizeof *search->banned);
  search->order = allocate(memory, search->candidate_count, sizeof *search->order);
  search->scores = allocate(memory, search->candidate_count, sizeof *search->scores);
  /* All beams are still the same one. */
  for (size_t i = 1; i < count; i++) search->running[i].score = IMPOSSIBLE;
  return search;
}

static void penalise(Search *search, const Tokens *text, double *values) {
  memset(search->seen, 0, search->vocabulary * sizeof *search->seen);
  for (size_t i = 0; i < search->rules->prefix.count; i++) search->seen[search->rules->prefix.ids[i]] = true;
  for (size_t i = 0; i < text->count; i++) search->seen[text->ids[i]] = true;
  for (size_t i = 0; i < search->vocabulary; i++) {
    if (search->seen[i]) values[i] = values[i] > 0 ? values[i] / search->penalty : values[i] * search->penalty;
  }
}

/* Makes probabilities of values whose exponentials are in proportion to them; of none, if all are impossible. */
static void normalize_logarithms(double *values, size_t count) {
  double largest_value = values[0], total = 0;
  for (size_t i = 1; i < count; i++) largest_value = values[i] > largest_value ? values[i] : largest_value;
  if (isinf(largest_value)) return;
  for (size_t i = 0; i < count; i++) {
    values[i] -= largest_value;
    total += exp_of_negative(values[i]);
  }
  double log_total = natural_log(total);
  for (size_t i = 0; i < count; i++) values[i] -= log_total;
}

/* Log-probabilities of what may follow a text. */
static void log_probabilities(Search *search, const Tokens *text, const float *logits, double *out) {
  int64_t forced = forced_token(search->rules, text->count);
  if (forced >= 0) {
    for (size_t i = 0; i < search->vocabulary; i++) out[i] = (int64_t)i == forced ? 0.0 : -INFINITY;
    return;
  }
  for (size_t i = 0; i < search->vocabulary; i++) out[i] = (double)logits[i];
  normalize_logarithms(out, search->vocabulary);
  if (search->penalty != 1) penalise(search, text, out);
  size_t count = banned_tokens(search->rules, text, search->banned);
  for (size_t i = 0; i < count; i++) out[search->banned[i]] = -INFINITY;
  if (search->renormalizes) normalize_logarithms(out, search->vocabulary);
}

static void copy_hypothesis(Hypothesis *to, const Hypothesis *from, double score) {
  memcpy(to->text.ids, from->text.ids, from->text.count * sizeof *to->text.ids);
  to->text.count = from->text.count;
  to->score = score;
}

/* Puts the text at `at` in its place among the better ones before it; of equal ones the earlier stays first. */
static void sort_in(Hypothesis *texts, size_t at) {
  Hypothesis moved = texts[at];
  for (; at > 0 && texts[at - 1].score < moved.score; at--) texts[at] = texts[at - 1];
  texts[at] = moved;
}

static void add_finished(Search *search, const Hypothesis *text, double score) {
  copy_hypothesis(&search->finished[search->finished_count], text, score);
  sort_in(search->finished, search->finished_count++);
}

/* The candidates, the most likely first; returns the length of each. */
static size_t find_candidates(const Memory *memory, Search *search, const float *logits) {
  size_t count = (size_t)search->beams.count, vocabulary = search->vocabulary;
  for (size_t i = 0; i < count; i++) {
    double *row = search->totals + i * vocabulary;
    log_probabilities(search, &search->running[i].text, logits + i * vocabulary, row);
    for (size_t token = 0; token < vocabulary; token++) row[token] += search->running[i].score;
  }
  largest(search->totals, count * vocabulary, search->candidate_count, search->places);
  if (isinf(search->totals[search->places[0]])) {
    fail(memory, EDGEQ_USAGE, "no token is left that may come next; allow repetitions, or ask for fewer tokens");
  }
  for (size_t i = 0; i < search->candidate_count; i++) {
    size_t place = search->places[i];
    Hypothesis *candidate = &search->candidates[i];
    copy_hypothesis(candidate, &search->running[place / vocabulary], search->totals[place]);
    candidate->text.ids[candidate->text.count++] = (int64_t)(place % vocabulary);
  }
  return search->candidates[0].text.count;
}

/* Whether no open text can still be better than the worst of enough finished ones. */
static bool is_settled(const Search *search, size_t length) {
  const Beams *beams = &search->beams;
  if (search->finished_count < (size_t)beams->count) return false;
  if (beams->early_stopping == EDGEQ_EARLY) return true;
  bool longest = beams->early_stopping == EDGEQ_NEVER_EARLY && beams->length_penalty > 0;
  double norm = power(longest ? search->rules->most : (int64_t)length, beams->length_penalty);
  return search->running[0].score / norm <= search->finished[search->finished_count - 1].score;
}

bool search_advance(const Memory *memory, Search *search, const float *logits, size_t *parents, int64_t *newest) {
  size_t count = (size_t)search->beams.count, ended = 0, open = 0;
  check_finite(memory, logits, count * search->vocabulary);
  size_t length = find_candidates(memory, search, logits);
  double norm = power((int64_t)length, search->beams.length_penalty);
  size_t *order = search->order;
  double *scores = search->scores;
  for (size_t i = 0; i < search->candidate_count; i++) {
    const Hypothesis *candidate = &search->candidates[i];
    bool ends = ends_text(search->rules, candidate->text.ids[length - 1]) || (int64_t)length == search->rules->most;
    ended += ends;
    if (ends && i < count) add_finished(search, candidate, candidate->score / norm);
    scores[i] = ends ? candidate->score + IMPOSSIBLE : candidate->score;
    order[i] = i;
  }
  if (search->finished_count > count) search->finished_count = count;
  largest(scores, search->candidate_count, count, order);
  for (; open < count; open++) {
    const Hypothesis *candidate = &search->candidates[order[open]];
    copy_hypothesis(&search->running[open], candidate, scores[order[open]]);
    parents[open] = search->places[order[open]] / search->vocabulary;
    newest[open] = candidate->text.ids[length - 1];
  }
  bool done = ended == search->candidate_count || is_settled(search, length);
  return !done;
}

const Hypothesis *search_best(const Search *search) { return &search->finished[0]; }
