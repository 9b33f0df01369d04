#include "generator.h"

#include <string.h>

#include "beams.h"
#include "decoder.h"
#include "platform.h"
#include "reading.h"
#include "sequence.h"

enum { MOST_TOGETHER = 1024, FIRST_ROOM = 8 };
/* Prompts are read in one call where that computes no more padding than this for each of them: about what reading the
 * weights once more costs. The bits do not depend on it. */
enum { PADDING_OF_A_PROMPT = 8 };

struct Generator {
  edgeq_session *session;
  Sequence **sequences; /* by number; NULL where there is none */
  size_t count, room;
  Sequence *first_waiting, **last_waiting; /* those that have not begun, in order */
  Sequence *unfinished_add;                /* a text that a failure kept from being added */
  size_t beams;                            /* of every text */
  /* Texts that run together: row numbers are those of the decoder. */
  Decoder *decoder; /* NULL before the first text begins */
  Sequence **rows;
  size_t *kept;
  Tokens *newest;
  size_t most, open, shown; /* rows; those in use; how many of these have shown their newest token */
  const float *logits;
  Sequence *searched; /* the text that beams search for; NULL between two */
  bool is_broken;     /* a failure ended it between two tokens */
};

/* ---- starting ---- */

void generator_end(edgeq_session *session) {
  session->generator = NULL;
  release_all(&session->generation);
}

static Generator *generator_new(edgeq_session *session, int64_t batch, size_t texts) {
  Memory *memory = &session->generation;
  const edgeq_model *model = session->model;
  generator_end(session);
  if (model->generation.context == 0) {
    fail(memory, EDGEQ_USAGE, "the bundle generates no text: it is for '%s'", model->info.task);
  }
  if (batch < 1 || batch > MOST_TOGETHER) {
    fail(memory, EDGEQ_USAGE, "batch must be an integer in 1..%d, found %lld", MOST_TOGETHER, (long long)batch);
  }
  Generator *generator = allocate(memory, 1, sizeof *generator);
  generator->session = session;
  generator->last_waiting = &generator->first_waiting;
  generator->most = texts < (size_t)batch ? texts : (size_t)batch;
  generator->beams = 1;
  generator->rows = allocate(memory, generator->most, sizeof *generator->rows);
  generator->kept = allocate(memory, generator->most, sizeof *generator->kept);
  generator->newest = allocate(memory, generator->most, sizeof *generator->newest);
  return generator;
}

/* Gives the text a number, and a place at the end of those that wait. */
static void enlist(Generator *generator, Sequence *sequence) {
  size_t index = 0;
  while (index < generator->count && generator->sequences[index] != NULL) index++;
  if (index == generator->room) {
    size_t room = generator->room > 0 ? 2 * generator->room : FIRST_ROOM, bytes = sizeof *generator->sequences;
    generator->sequences = reallocate(&generator->session->generation, generator->sequences, generator->room * bytes,
                                      room * bytes);
    generator->room = room;
  }
  if (index == generator->count) generator->count++;
  generator->sequences[index] = sequence;
  sequence->index = index;
  *generator->last_waiting = sequence;
  generator->last_waiting = &sequence->waiting;
}

void generator_start(edgeq_session *session, const edgeq_text *texts, size_t count, const edgeq_generation *options) {
  Generator *generator = generator_new(session, options->batch, count);
  Memory *memory = &session->generation;
  if (count == 0) fail(memory, EDGEQ_USAGE, "there is no text; give at least one");
  generator->room = count;
  generator->sequences = allocate(memory, count, sizeof *generator->sequences);
  const Tokens *given = NULL;
  for (size_t i = 0; i < count; i++) {
    Sequence *sequence = sequence_new(session);
    sequence_ask(sequence, options);
    if (given == NULL) given = checked_texts(memory, session, texts, count);
    sequence_prepare(sequence, given[i]);
    generator->sequences[i] = sequence;
    sequence->index = generator->count++;
    *generator->last_waiting = sequence;
    generator->last_waiting = &sequence->waiting;
  }
  generator->beams = (size_t)generator->sequences[0]->settings.beams.count;
  session->generator = generator;
}

void generator_open(edgeq_session *session, int64_t batch) {
  session->generator = generator_new(session, batch, MOST_TOGETHER);
}

static Generator *started(const edgeq_session *session) {
  Generator *generator = session->generator;
  if (generator == NULL) {
    fail(&session->call, EDGEQ_USAGE, "no texts are started; call edgeq_generate_start or edgeq_generate_open first");
  }
  if (generator->is_broken) {
    fail(&session->call, EDGEQ_USAGE, "the texts were ended by a failure; call edgeq_generate_start again");
  }
  return generator;
}

static void forget(Generator *generator, Sequence *sequence) {
  release(&generator->session->generation, sequence);
}

size_t generator_add(edgeq_session *session, const edgeq_text *text, const edgeq_generation *options) {
  Generator *generator = started(session);
  if (generator->unfinished_add != NULL) forget(generator, generator->unfinished_add);
  Sequence *sequence = generator->unfinished_add = sequence_new(session);
  sequence_ask(sequence, options);
  if (sequence->settings.beams.count != 1 || generator->beams != 1) {
    fail(&session->call, EDGEQ_USAGE, "beam search takes no further texts; ask for 1 beam");
  }
  sequence_prepare(sequence, checked_texts(&sequence->memory, session, text, 1)[0]);
  enlist(generator, sequence);
  generator->unfinished_add = NULL;
  return sequence->index;
}

/* ---- texts that run together ---- */

static bool has_ended(const Sequence *sequence) { return sequence->finish != EDGEQ_UNFINISHED; }

/* Closes the rows up: those of texts that were completed, or of `dropped`, are free again. */
static void close_up(Generator *generator, const Sequence *dropped) {
  size_t open = 0, shown = generator->shown;
  for (size_t row = 0; row < generator->open; row++) {
    Sequence *sequence = generator->rows[row];
    if (sequence == dropped && row < generator->shown) shown--;
    if (sequence == dropped || (dropped == NULL && has_ended(sequence))) {
      release_all(&sequence->choosing);
      continue;
    }
    generator->kept[open] = row;
    generator->rows[open++] = sequence;
  }
  if (open == generator->open) return;
  decoder_keep(generator->decoder, generator->kept, open);
  if (dropped != NULL) { /* the logits of texts that have yet to show their newest token */
    size_t vocabulary = generator->decoder->vocabulary;
    for (size_t row = 0; row < open; row++) {
      size_t from = generator->kept[row];
      float *logits = generator->decoder->logits;
      if (from != row) memcpy(logits + row * vocabulary, logits + from * vocabulary, vocabulary * sizeof *logits);
    }
  }
  generator->open = open;
  generator->shown = shown;
}

/* Prompts from row `first` on that are read in one call. */
static size_t prompts_together(const Generator *generator, size_t first) {
  size_t longest = 0, whole = 0, count = 0;
  for (size_t row = first; row < generator->open; row++, count++) {
    size_t tokens = generator->rows[row]->given.count;
    longest = tokens > longest ? tokens : longest;
    whole += tokens;
    if (count > 0 && longest * (count + 1) - whole > PADDING_OF_A_PROMPT * (count + 1)) break;
  }
  return count;
}

/* Begins as many texts as there are free rows. Prompts are read here: they give the first tokens. */
static void begin(Generator *generator) {
  size_t first = generator->open, count;
  Memory *memory = &generator->session->generation;
  if (generator->decoder == NULL) generator->decoder = decoder_open(memory, generator->session, generator->most);
  while (generator->open < generator->most && generator->first_waiting != NULL) {
    Sequence *sequence = generator->first_waiting;
    sequence_begin(sequence);
    generator->first_waiting = sequence->waiting;
    if (generator->first_waiting == NULL) generator->last_waiting = &generator->first_waiting;
    generator->newest[generator->open] = sequence->given;
    generator->rows[generator->open++] = sequence;
  }
  for (size_t row = first; row < generator->open; row += count) {
    count = prompts_together(generator, row);
    decoder_add(generator->decoder, generator->newest + row, count);
    if (reads_source(generator->session->model)) continue;
    generator->logits = decoder_append(generator->decoder, generator->newest + row, row, count);
  }
}

/* Texts that are complete leave, others take their places, and each gets one token. */
static void advance(Generator *generator) {
  close_up(generator, NULL);
  size_t before = generator->open;
  if (generator->first_waiting != NULL && before < generator->most) begin(generator);
  generator->shown = 0;
  /* What begins with an encoder input has no logits yet: its first token follows the one that starts every text. */
  size_t count = reads_source(generator->session->model) ? generator->open : before;
  for (size_t row = 0; row < count; row++) {
    const Sequence *sequence = generator->rows[row];
    const Tokens *made = &sequence->made;
    generator->newest[row] = made->count > 0 ? (Tokens){made->ids + made->count - 1, 1} : sequence->rules.prefix;
  }
  if (count > 0) generator->logits = decoder_append(generator->decoder, generator->newest, 0, count);
  size_t vocabulary = generator->open > 0 ? generator->decoder->vocabulary : 0;
  for (size_t row = 0; row < generator->open; row++) {
    sequence_choose(generator->rows[row], generator->logits + row * vocabulary);
  }
}

void generator_drop(edgeq_session *session, size_t index) {
  Generator *generator = started(session);
  if (index >= generator->count || generator->sequences[index] == NULL) {
    fail(&session->call, EDGEQ_USAGE, "there is no text %zu to drop", index);
  }
  Sequence *sequence = generator->sequences[index];
  Sequence **link = &generator->first_waiting;
  while (*link != NULL && *link != sequence) link = &(*link)->waiting;
  if (*link == sequence) {
    *link = sequence->waiting;
    if (*link == NULL) generator->last_waiting = link;
  }
  close_up(generator, sequence);
  if (generator->searched == sequence) generator->searched = NULL;
  generator->sequences[index] = NULL;
  forget(generator, sequence);
}

/* ---- beam search ---- */

/* The beams of one text are the batch. */
static void search_text(Generator *generator, Sequence *sequence) {
  Memory *memory = &sequence->choosing;
  const Settings *settings = &sequence->settings;
  size_t count = generator->beams;
  Tokens *newest = allocate(memory, count, sizeof *newest);
  int64_t *tokens = allocate(memory, count, sizeof *tokens);
  size_t *parents = allocate(memory, count, sizeof *parents);
  Decoder *decoder = decoder_open_beams(memory, generator->session, sequence->given, count);
  Search *search = search_new(memory, settings, &sequence->rules, decoder->vocabulary);
  for (size_t i = 0; i < count; i++) {
    tokens[i] = sequence->rules.prefix.ids[0];
    newest[i] = (Tokens){&tokens[i], 1};
  }
  for (bool open = true; open;) {
    const float *logits = decoder_append(decoder, newest, 0, count);
    if (sequence->start == 0) sequence->start = now();
    open = search_advance(memory, search, logits, parents, tokens);
    if (open) decoder_reorder(decoder, parents);
  }
  const Hypothesis *best = search_best(search);
  memcpy(sequence->made.ids, best->text.ids, best->text.count * sizeof *best->text.ids);
  sequence->made.count = best->text.count;
  sequence->score = best->score;
  sequence->seconds = now() - sequence->start;
  release_all(memory);
}

static bool next_of_search(Generator *generator, edgeq_piece *piece) {
  while (generator->searched == NULL || generator->searched->shown == generator->searched->made.count) {
    Sequence *sequence = generator->searched = generator->first_waiting;
    if (sequence == NULL) return false;
    generator->first_waiting = sequence->waiting;
    search_text(generator, sequence);
  }
  sequence_show(generator->searched, piece);
  return true;
}

/* ---- pieces ---- */

static bool next_piece(Generator *generator, edgeq_piece *piece) {
  if (generator->beams > 1) return next_of_search(generator, piece);
  if (generator->shown == generator->open) advance(generator);
  if (generator->open == 0) return false;
  size_t row = generator->shown++;
  sequence_show(generator->rows[row], piece);
  piece->logits = generator->logits + row * generator->decoder->vocabulary;
  return true;
}

bool generator_next(edgeq_session *session, edgeq_piece *piece) {
  Generator *generator = started(session);
  generator->is_broken = true;
  bool made = next_piece(generator, piece);
  generator->is_broken = false;
  return made;
}

void generator_result(edgeq_session *session, size_t index, edgeq_generated *generated) {
  const Generator *generator = session->generator;
  if (generator == NULL || index >= generator->count || generator->sequences[index] == NULL) {
    fail(&session->call, EDGEQ_USAGE, "there is no text %zu; call edgeq_generate_start first", index);
  }
  const Sequence *sequence = generator->sequences[index];
  *generated = (edgeq_generated){.ids = sequence->made.ids,
                                 .id_count = sequence->shown,
                                 .text = sequence->stream.text.data != NULL ? sequence->stream.text.data : "",
                                 .text_size = sequence->stream.certain,
                                 .prompt_tokens = sequence->given.count,
                                 .score = sequence->score,
                                 .seconds = sequence->seconds,
                                 .finish = sequence->finish};
}
