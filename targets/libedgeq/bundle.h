/* A bundle on disk: its manifest, checked, and its data files, mapped. */
#ifndef EDGEQ_BUNDLE_H
#define EDGEQ_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "digests.h"
#include "settings.h"
#include "specs.h"

enum {
  LANES = 16,         /* neighbouring keys of one vector in a key cache */
  DECODER_INPUTS = 3, /* input_ids [batch, sequence], past_lengths [batch], new_lengths [batch], all int64 */
  TARGET_INPUTS = 4,  /* those of a decoder with a source: then source_lengths [batch] */
  SOURCE_INPUTS = 3,  /* input_ids, attention_mask [batch, sequence], source_lengths [batch], all int64 */
};

/* What model.so can do: `main` always, `encode` if the model reads a source before it writes. */
typedef enum { MAIN, ENCODE, FUNCTIONS } FunctionName;

/* It takes inputs, caches and weights; it gives outputs, and `encode` then its caches. */
typedef struct {
  const char *name;
  Spec *inputs, *outputs;
  size_t input_count, output_count; /* 0 if the model has no such function */
  int64_t longest;                  /* most tokens of a row of inputs; 0 if nothing limits it */
} Function;

/* Inputs of one call and the outputs it must give: as many as the function's. */
typedef struct {
  FunctionName function;
  Array *inputs, *outputs;
} GoldenRun;

/* How a model makes text. */
typedef struct {
  int64_t context; /* most tokens of a sequence; 0 for models that make no text */
  int64_t *end_ids;
  size_t end_count;
  Spec *state; /* caches: functions take them between inputs and weights and change them */
  bool *of_source; /* which of them `encode` fills */
  size_t state_count;
  int64_t source_context; /* most tokens of a source; 0 if the model reads none */
  int64_t start_id;       /* token that every written text starts with; it is not part of the text */
  int64_t forced_first, forced_last; /* -1 for none */
  Settings settings;
} Generation;

typedef struct {
  char *folder; /* absolute */
  const char *task;
  const char *pooling;
  bool normalize;
  const char **labels;
  size_t label_count;
  Function functions[FUNCTIONS];
  Array *weights;
  size_t weight_count;
  GoldenRun *golden; /* one; for models that make text, calls that follow each other on one state */
  size_t golden_count;
  Generation generation;
  Mapping tokenizer; /* tokenizer.bin; its size is 0 if there is none */
  Digests *weights_digests; /* those of weights.bin until they are compared */
} Bundle;

/* Instead of a number of threads: the SHA-256 of files is not looked at. */
enum { NO_DIGESTS = -1 };

/* Reads the manifest in `folder`, checks that this processor is the target, compares every file's size and SHA-256 with
 * it (on `digest_threads` threads, 0 for every core), and maps weights.bin and golden.bin read-only. Stops the program
 * if anything does not fit. The SHA-256 of weights.bin are still being compared when this returns. */
void bundle_open(Bundle *bundle, const char *folder, int digest_threads);

/* Ends comparing the SHA-256 of weights.bin; to be called before anything reads the weights. Stops the program if they
 * are damaged. */
void bundle_check_weights(Bundle *bundle);

/* Path of a file in the bundle. */
char *bundle_file(const Bundle *bundle, const char *name);

/* Whether the model reads a source before it writes. */
static inline bool reads_source(const Bundle *bundle) { return bundle->generation.source_context > 0; }

#endif
