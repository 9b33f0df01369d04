/* The command line. */
#ifndef EDGEQ_OPTIONS_H
#define EDGEQ_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "edgeq.h"

/* What a bundle is run for: its own task (JOB_READ: to embed or classify texts), or what an option asks for (JOB_IDS: to run
 * token ids; JOB_RAW: to print or compare what the model computes). */
typedef enum { JOB_READ, JOB_TAG, JOB_ANSWER, JOB_FILL, JOB_RANK, JOB_TOKENS, JOB_GENERATE, JOB_IDS, JOB_RAW, JOBS } JobKind;

typedef struct {
  const char *bundle, *ids, *text, *file, *tensors, *profile, *out, *variant, *early_stopping;
  const char *pair[2], *pairs, *jsonl, *csv, *column;      /* where texts come from, besides */
  const char *query, *documents, *question, *context;
  const char *on_long, *aggregation, *ignored, *targets;   /* as they are given */
  bool self_test, tokens, json, raw, no_verify, verify_all, ignore_end;
  bool generate;
  int64_t repeat, threads; /* 0 if not given */
  edgeq_generation generation; /* how texts are generated */
  int64_t top_k;               /* of answers, fillings or documents; -1 if not given */
  bool may_be_none;
  const char *refused[JOBS]; /* of the options that are given one that changes nothing of this job; NULL if all do */
  edgeq_text_options reading;
  edgeq_tag_options tagging;
  edgeq_answer_options answering;
  edgeq_fill_options filling;
} Options;

/* Whether there are texts that the bundle's tokenizer turns into ids. */
static inline bool needs_tokenizer(const Options *options) {
  return options->text != NULL || options->file != NULL || options->pair[0] != NULL || options->pairs != NULL ||
         options->jsonl != NULL || options->csv != NULL || options->documents != NULL || options->question != NULL;
}

/* Whether there are texts or ids to run. */
static inline bool has_texts(const Options *options) { return options->ids != NULL || needs_tokenizer(options); }

/* Reads and checks the arguments; stops the program if they make no sense, or after --help. */
Options read_options(int count, char **arguments);

#endif
