/* A model: what a bundle holds, checked, and where it lies in memory. */
#ifndef EDGEQ_MODEL_H
#define EDGEQ_MODEL_H

#include "checked_file.h"
#include "elf.h"
#include "plan.h"
#include "prepared.h"
#include "settings.h"
#include "tokenizer_table.h"

enum {
  LANES = 16,         /* neighbouring keys of one vector in a key cache */
  DECODER_INPUTS = 3, /* input_ids [batch, sequence], past_lengths [batch], new_lengths [batch], all int64 */
  TARGET_INPUTS = 4,  /* those of a decoder with an encoder input: then source_lengths [batch] */
  SOURCE_INPUTS = 3,  /* input_ids, attention_mask [batch, sequence], source_lengths [batch], all int64 */
};

typedef struct {
  const char *name;
  Interface interface;
  const Plan *plan;
  Kernel *kernels;  /* as many as the plan's names */
  atomic_bool *is_checked; /* for each step: its weights are compared with their digests */
  size_t *state_at; /* for each state of the function its number among those of `main` */
  int64_t longest;  /* most tokens of a row of inputs; 0 if nothing limits it */
} Function;

/* Inputs of one call and the outputs it must give: as many as the function's. */
typedef struct {
  int32_t function;
  edgeq_tensor *inputs, *outputs;
} GoldenRun;

/* How a model generates text. */
typedef struct {
  int64_t context; /* most tokens of a sequence; 0 for models that make no text */
  int64_t *end_ids;
  size_t end_count;
  bool *of_source;        /* which states of `main` `encode` fills */
  int64_t source_context; /* most tokens of an encoder input; 0 if the model reads none */
  int64_t start_id;       /* token that every written text starts with; it is not part of the text */
  int64_t forced_first, forced_last; /* -1 for none */
  int64_t *banned_ids;               /* tokens that never come */
  size_t banned_count;
  int64_t vocabulary;
  Settings settings;
} Generation;

typedef enum { SCORES_AS_THEY_ARE, SCORES_SIGMOID, SCORES_SOFTMAX } Scores;

/* A beginning of texts. */
typedef struct {
  const char *name, *text;
} Prompt;

/* How texts are read, and what a classifier's numbers mean. */
typedef struct {
  const char *prompt; /* is put before every text if no other one is asked for; empty for most models */
  const Prompt *prompts;
  size_t prompt_count;
  int64_t longest;    /* most tokens of a text; 0 if only the model limits it */
  bool cuts;          /* longer texts are cut; otherwise they are refused */
  bool cuts_left;     /* at their beginning */
  Scores scores;
} TextRules;

struct edgeq_model {
  Memory memory; /* this and the sentence stay where a model could not be opened */
  Failure failure;
  edgeq_info info;
  const Mapping *manifest;
  const void *code; /* where address 0 of the code file lies; NULL if the code is linked in */
  Function functions[EDGEQ_FUNCTIONS];
  edgeq_tensor *weights;
  KernelTensor *weight_tensors;
  size_t weight_count;
  CheckedFile weights_file, golden_file;
  GoldenRun *golden; /* in the order in which they run, on one state */
  size_t golden_count;
  Generation generation;
  TextRules texts;
  TokenizerTable tokenizer;
  const char *no_tokenizer; /* why texts cannot be given; NULL if they can */
};

/* Whether the model has an encoder, which reads an encoder input. */
static inline bool reads_source(const edgeq_model *model) { return model->generation.source_context > 0; }

#endif
