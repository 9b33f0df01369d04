#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "own_bundle.h"
#include "stop.h"

static const char USAGE[] =
    "usage: edgeq-run BUNDLE --self-test | --text TEXT | --file FILE | --ids FILE |\n"
    "                        --tensors IN --out OUT | --profile IN\n"
    "\n"
    "  BUNDLE           folder that `edgeq compile` made, or file that `edgeq pack` made; a program that\n"
    "                   `edgeq pack --executable` made has its own, and takes none\n"
    "  --self-test      run the stored input; exit 1 if one bit of the output differs\n"
    "  --text TEXT      embed, classify, continue or rewrite a text\n"
    "  --file FILE      the same for one text a line, in UTF-8\n"
    "  --ids FILE       the same for one text a line, as token ids separated by spaces\n"
    "  --tokens         print the token ids of --text or --file, and do nothing else\n"
    "  --generate N     continue or rewrite every text with at most N tokens, `auto` as many as the model's\n"
    "                   generation_config.json says, or 100 (128 of a source); prints texts, and for --ids ids\n"
    "  --tensors IN     sets of inputs as `edgeq` writes them; outputs go to --out\n"
    "  --out OUT\n"
    "  --profile IN     the last of the sets of inputs in IN: latency, kernels and memory, as a line of JSON\n"
    "  --json           print JSON lines\n"
    "  --raw            print the model's outputs as they are, not an embedding or a label\n"
    "  --repeat N       after one run to warm up, time N runs of every text (or of --profile)\n"
    "  --threads N      threads of kernels and of --verify-all (default: OMP_NUM_THREADS, or every core that the process may\n"
    "                   use); results do not depend on it\n"
    "  --variant NAME   run the code for this target, of those in the bundle (default: the best for this processor)\n"
    "  --verify-all     compare every file with its SHA-256 first; by default what is used is compared with its\n"
    "                   CRC-32 as it is used, which finds damage, and signed bundles as with this option\n"
    "  --no-verify      compare nothing but the manifest with its digest\n"
    "\n"
    "with --generate (what is not given is as the model's generation_config.json says):\n"
    "  --temperature T  draw by chance; 0 takes the most likely token, 1 the model's probabilities\n"
    "  --top-k K        draw from the K most likely tokens only\n"
    "  --top-p P        draw from the most likely tokens that together have probability P only\n"
    "  --repetition-penalty F      factor against tokens that the text has already\n"
    "  --seed N         start of the random numbers\n"
    "  --min-new-tokens N          tokens to make before one may end the text\n"
    "  --no-repeat-ngram-size N    make no sequence of N tokens twice; 0 allows all\n"
    "  --num-beams N    bundles that read a source: texts that beam search keeps; 1 is greedy\n"
    "  --length-penalty F          beam search: above 0 favours longer texts\n"
    "  --early-stopping WHEN       beam search: yes stops when as many texts as beams have ended, no when the best\n"
    "                              open one is worse, never when none can become better\n"
    "  --ignore-end     go on after the token that ends a text\n"
    "  --batch N        most texts that run together (default: 1)\n"
    "\n"
    "example: edgeq-run . --text 'A cat sat on the mat.' --json --threads 4\n";

typedef enum { TEXT, FLAG, INTEGER, NUMBER, LENGTH } Kind;

/* An option: where its value goes, and for integers the range. */
typedef struct {
  const char *name;
  Kind kind;
  void *to;
  int64_t least, most;
} Option;

static int64_t integer(const Option *option, const char *value) {
  char *end = NULL;
  errno = 0;
  long long number = strtoll(value, &end, 10);
  if (errno != 0 || end == value || *end != '\0' || number < option->least || number > option->most) {
    stop(EXIT_USAGE, "%s takes a number in %lld..%lld, found '%s'", option->name, (long long)option->least,
         (long long)option->most, value);
  }
  return number;
}

static double number(const Option *option, const char *value) {
  char *end = NULL;
  double result = strtod(value, &end);
  if (end == value || *end != '\0' || isnan(result)) {
    stop(EXIT_USAGE, "%s takes a number, found '%s'", option->name, value);
  }
  return result;
}

/* A number of new tokens, or `auto`. */
static void set_length(const Option *option, const char *value, Options *options) {
  options->generate = true;
  if (strcmp(value, "auto") != 0) options->generation.max_new_tokens = integer(option, value);
}

/* Sets one option; returns how many arguments it took. */
static int set(const Option *option, const char *value) {
  if (option->kind == FLAG) {
    *(bool *)option->to = true;
    return 1;
  }
  if (value == NULL) stop(EXIT_USAGE, "%s needs a value; see --help", option->name);
  if (option->kind == TEXT) *(const char **)option->to = value;
  if (option->kind == INTEGER) *(int64_t *)option->to = integer(option, value);
  if (option->kind == NUMBER) *(double *)option->to = number(option, value);
  if (option->kind == LENGTH) set_length(option, value, option->to);
  return 2;
}

/* Whether the command line changes how texts are made. */
static bool changes_texts(const Options *options) {
  const edgeq_generation *g = &options->generation;
  return !isnan(g->temperature) || !isnan(g->top_p) || !isnan(g->repetition_penalty) || !isnan(g->length_penalty) ||
         g->top_k >= 0 || g->seed >= 0 || g->beams >= 0 || g->no_repeat_ngram_size >= 0 || g->min_new_tokens >= 0 ||
         g->max_new_tokens >= 0 || g->early_stopping >= 0 || options->ignore_end || g->batch > 1;
}

static void set_early_stopping(Options *options) {
  static const struct {
    const char *name;
    int32_t value;
  } known[] = {{"no", EDGEQ_NOT_EARLY}, {"yes", EDGEQ_EARLY}, {"never", EDGEQ_NEVER_EARLY}};
  const char *given = options->early_stopping;
  if (given == NULL) return;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(known[i].name, given) == 0) options->generation.early_stopping = known[i].value;
  }
  if (options->generation.early_stopping < 0) {
    stop(EXIT_USAGE, "--early-stopping takes yes, no or never, found '%s'", given);
  }
}

static void check_options(const Options *options) {
  int jobs = options->self_test + (options->text != NULL) + (options->file != NULL) + (options->ids != NULL) +
             (options->tensors != NULL) + (options->profile != NULL);
  if (options->bundle == NULL) stop(EXIT_USAGE, "name a bundle; see --help");
  if (options->verify_all && options->no_verify) {
    stop(EXIT_USAGE, "--verify-all and --no-verify exclude each other; see --help");
  }
  if (jobs != 1) {
    stop(EXIT_USAGE, "give one of --self-test, --text, --file, --ids, --tensors and --profile; see --help");
  }
  if ((options->tensors != NULL) != (options->out != NULL)) {
    stop(EXIT_USAGE, "--tensors and --out belong together; see --help");
  }
  if (options->repeat > 0 && !has_texts(options) && options->profile == NULL) {
    stop(EXIT_USAGE, "--repeat needs texts, --ids or --profile; see --help");
  }
  if (options->generate && !has_texts(options)) stop(EXIT_USAGE, "--generate needs texts or --ids; see --help");
  if (options->tokens && (!needs_tokenizer(options) || options->generate || options->repeat > 0 || options->raw)) {
    stop(EXIT_USAGE, "--tokens goes with --text or --file alone; see --help");
  }
  if (options->generate && (options->repeat > 0 || options->raw)) {
    stop(EXIT_USAGE, "--generate goes with neither --repeat nor --raw; see --help");
  }
  if (changes_texts(options) && !options->generate) stop(EXIT_USAGE, "the options that choose tokens need --generate; see --help");
}

/* What OpenMP's programs look at too; "4,2" is for nested regions, of which the first number counts. */
static int64_t threads_of_environment(void) {
  const char *text = getenv("OMP_NUM_THREADS");
  char *end = NULL;
  long threads = text != NULL ? strtol(text, &end, 10) : 0;
  bool is_number = text != NULL && end != text && (*end == '\0' || *end == ',');
  return is_number && threads >= 1 && threads <= 1024 ? threads : 0;
}

Options read_options(int count, char **arguments) {
  Options options = {.bundle = own_bundle()};
  edgeq_generation *generation = &options.generation;
  edgeq_generation_defaults(generation);
  const Option known[] = {
      {"--ids", TEXT, &options.ids, 0, 0},
      {"--text", TEXT, &options.text, 0, 0},
      {"--file", TEXT, &options.file, 0, 0},
      {"--tokens", FLAG, &options.tokens, 0, 0},
      {"--tensors", TEXT, &options.tensors, 0, 0},
      {"--out", TEXT, &options.out, 0, 0},
      {"--profile", TEXT, &options.profile, 0, 0},
      {"--variant", TEXT, &options.variant, 0, 0},
      {"--self-test", FLAG, &options.self_test, 0, 0},
      {"--json", FLAG, &options.json, 0, 0},
      {"--raw", FLAG, &options.raw, 0, 0},
      {"--no-verify", FLAG, &options.no_verify, 0, 0},
      {"--verify-all", FLAG, &options.verify_all, 0, 0},
      {"--ignore-end", FLAG, &options.ignore_end, 0, 0},
      {"--repeat", INTEGER, &options.repeat, 1, 1000000},
      {"--threads", INTEGER, &options.threads, 1, 1024},
      {"--batch", INTEGER, &generation->batch, 1, 1024},
      {"--generate", LENGTH, &options, 1, INT32_MAX},
      {"--min-new-tokens", INTEGER, &generation->min_new_tokens, 0, INT32_MAX},
      {"--no-repeat-ngram-size", INTEGER, &generation->no_repeat_ngram_size, 0, INT32_MAX},
      {"--num-beams", INTEGER, &generation->beams, 1, 64},
      {"--top-k", INTEGER, &generation->top_k, 0, UINT32_MAX},
      {"--seed", INTEGER, &generation->seed, 0, INT64_MAX},
      {"--temperature", NUMBER, &generation->temperature, 0, 0},
      {"--top-p", NUMBER, &generation->top_p, 0, 0},
      {"--repetition-penalty", NUMBER, &generation->repetition_penalty, 0, 0},
      {"--length-penalty", NUMBER, &generation->length_penalty, 0, 0},
      {"--early-stopping", TEXT, &options.early_stopping, 0, 0},
  };
  for (int i = 1; i < count;) {
    const Option *option = NULL;
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
      if (strcmp(arguments[i], known[k].name) == 0) option = &known[k];
    }
    if (option != NULL) {
      i += set(option, i + 1 < count ? arguments[i + 1] : NULL);
    } else if (strcmp(arguments[i], "--help") == 0 || strcmp(arguments[i], "-h") == 0) {
      fputs(USAGE, stdout);
      exit(0);
    } else if (arguments[i][0] == '-' || options.bundle != NULL) {
      stop(EXIT_USAGE, "unexpected argument '%s'; see --help", arguments[i]);
    } else {
      options.bundle = arguments[i++];
    }
  }
  if (options.threads == 0) options.threads = threads_of_environment();
  set_early_stopping(&options);
  generation->ignore_end = options.ignore_end;
  check_options(&options);
  return options;
}
