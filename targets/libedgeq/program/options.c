#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "own_bundle.h"
#include "stop.h"

/* In parts: compilers need not take a text of more than 4095 bytes. */
static const char *const USAGE[] = {
    "usage: edgeq-run BUNDLE --self-test | TEXTS | --ids FILE | --tensors IN --out OUT | --profile IN\n"
    "\n"
    "Runs a compiled model on texts: prints embeddings, labels, answers or generated texts, one line each.\n"
    "\n"
    "  BUNDLE           folder that `edgeq compile` wrote, or file that `edgeq pack` wrote; a program that\n"
    "                   `edgeq pack --executable` wrote has its own, and takes none\n"
    "  --self-test      run the stored input; exit 1 if one bit of the output differs\n"
    "\n"
    "TEXTS is one of these; FILE may be - for standard input:\n"
    "  --text TEXT      a text\n"
    "  --file FILE      one text per line, in UTF-8; a blank line keeps its place\n"
    "  --pair A B       two texts that the model takes as one input\n"
    "  --pairs FILE     one pair per line, separated by a tab\n"
    "  --question Q --context C     answers the question from the context\n"
    "  --query Q --documents FILE   sorts documents, one per line, best match first\n"
    "  --jsonl FILE     one JSON object per line, --csv FILE a table with a header (.tsv: with tabs): the text is under\n"
    "                   text, sentence or question, its second under text_pair or context; id and other fields come back\n"
    "  --column NAME    field of the text in --jsonl and --csv\n"
    "\n"
    "reading of texts, and results:\n"
    "  --prompt-name NAME          prompt of the model to put before every text\n"
    "  --on-long WHAT   texts longer than the model takes: error, cut, or split into rows (embeddings and logits are\n"
    "                   averaged by tokens; default: the model's own setting)\n"
    "  --max-tokens N   most tokens in a text or row; --overlap N tokens shared by two rows\n"
    "  --aggregation HOW           how token labels are joined: none, simple (default), first, average, max\n"
    "  --ignore-labels A,B         labels to leave out (default: O)\n"
    "  --top-k K        answers (default 1), tokens for a mask (default 5), documents (default all)\n"
    "  --max-answer-tokens N       most tokens in an answer (default 15)\n"
    "  --allow-no-answer           count \"there is no answer\" as an answer\n"
    "  --targets A,B    tokens to choose from for a mask\n"
    "\n",
    "  --ids FILE       one text per line, as token ids separated by spaces\n"
    "  --tokens         print the token ids of texts, and do nothing else\n"
    "  --generate N     generate at most N tokens for every text, `auto` as many as the model's\n"
    "                   generation_config.json says, or 100 (encoder-decoders: 128); prints texts, for --ids ids\n"
    "  --tensors IN     sets of inputs as edgeq writes them\n"
    "  --out OUT        file for the outputs of --tensors\n"
    "  --profile IN     the last of the sets of inputs in IN: latency, kernels and memory, as a line of JSON\n"
    "  --json           print JSON lines\n"
    "  --raw            print the model's outputs as they are, not an embedding or a label\n"
    "  --repeat N       after one run to warm up, time N runs of every text (or of --profile)\n"
    "  --threads N      threads of kernels and of --verify-all (default: OMP_NUM_THREADS, or every core that the process may\n"
    "                   use); results do not depend on it\n"
    "  --variant NAME   run the code for this target, of those in the bundle (default: the best for this processor)\n"
    "  --verify-all     compare every file with its SHA-256 first; by default what is used is compared with its\n"
    "                   CRC-32 as it is used, which finds damage; signed bundles always as with this option\n"
    "  --no-verify      compare nothing but the manifest with its digest\n"
    "\n",
    "with --generate (defaults: the model's generation_config.json):\n"
    "  --temperature T  0 is greedy, 1 samples with the model's probabilities\n"
    "  --top-k K        sample from the K most likely tokens only\n"
    "  --top-p P        sample from the most likely tokens that add up to probability P\n"
    "  --repetition-penalty F      penalty for tokens that the text already has; 1 is none\n"
    "  --seed N         seed of the random numbers\n"
    "  --min-new-tokens N          least tokens before the text may end\n"
    "  --no-repeat-ngram-size N    repeat no sequence of N tokens; 0 allows all\n"
    "  --num-beams N    encoder-decoders: number of beams; 1 is greedy\n"
    "  --length-penalty F          beam search: above 0 favours longer texts\n"
    "  --early-stopping WHEN       beam search: yes stops when as many texts as beams have ended, no when the best\n"
    "                              open one is worse, never when none can become better\n"
    "  --ignore-end     do not stop at the end-of-text token\n"
    "  --batch N        most texts computed together (default: 1)\n"
    "\n"
    "example: edgeq-run . --text 'A cat sat on the mat.' --json --threads 4\n",
};

typedef enum { TEXT, PAIR, FLAG, INTEGER, NUMBER, LENGTH } Kind;

/* Jobs that take an option, a bit each. */
enum {
  ANY = (1 << JOBS) - 1,
  TAG = 1 << JOB_TAG,
  ANSWER = 1 << JOB_ANSWER,
  FILL = 1 << JOB_FILL,
  RANK = 1 << JOB_RANK,
  GENERATE = 1 << JOB_GENERATE,
  TEXTS = ANY & ~(GENERATE | 1 << JOB_IDS | 1 << JOB_RAW),
};

/* An option: its Kind, which jobs take it, where its value goes, and for integers the range. */
typedef struct {
  const char *name;
  unsigned char kind;
  unsigned short jobs, to; /* place in Options */
  unsigned char least;
  int64_t most;
} Option;

#define AT(field) offsetof(Options, field)

static const Option KNOWN[] = {
    {"--ids", TEXT, ANY, AT(ids), 0, 0},
    {"--text", TEXT, ANY, AT(text), 0, 0},
    {"--file", TEXT, ANY, AT(file), 0, 0},
    {"--pair", PAIR, ANY, AT(pair), 0, 0},
    {"--pairs", TEXT, ANY, AT(pairs), 0, 0},
    {"--query", TEXT, RANK, AT(query), 0, 0},
    {"--documents", TEXT, ANY, AT(documents), 0, 0},
    {"--question", TEXT, ANY, AT(question), 0, 0},
    {"--context", TEXT, ANY, AT(context), 0, 0},
    {"--jsonl", TEXT, ANY, AT(jsonl), 0, 0},
    {"--csv", TEXT, ANY, AT(csv), 0, 0},
    {"--column", TEXT, ANY, AT(column), 0, 0},
    {"--prompt-name", TEXT, TEXTS, AT(reading.prompt_name), 0, 0},
    {"--on-long", TEXT, TEXTS, AT(on_long), 0, 0},
    {"--max-tokens", INTEGER, TEXTS | 1 << JOB_IDS, AT(reading.max_tokens), 1, INT32_MAX},
    {"--overlap", INTEGER, TEXTS, AT(reading.overlap), 0, INT32_MAX},
    {"--aggregation", TEXT, TAG, AT(aggregation), 0, 0},
    {"--ignore-labels", TEXT, TAG, AT(ignored), 0, 0},
    {"--max-answer-tokens", INTEGER, ANSWER, AT(answering.longest), 1, INT32_MAX},
    {"--allow-no-answer", FLAG, ANSWER, AT(may_be_none), 0, 0},
    {"--targets", TEXT, FILL, AT(targets), 0, 0},
    {"--tokens", FLAG, ANY, AT(tokens), 0, 0},
    {"--tensors", TEXT, ANY, AT(tensors), 0, 0},
    {"--out", TEXT, ANY, AT(out), 0, 0},
    {"--profile", TEXT, ANY, AT(profile), 0, 0},
    {"--variant", TEXT, ANY, AT(variant), 0, 0},
    {"--self-test", FLAG, ANY, AT(self_test), 0, 0},
    {"--json", FLAG, ANY, AT(json), 0, 0},
    {"--raw", FLAG, ANY, AT(raw), 0, 0},
    {"--no-verify", FLAG, ANY, AT(no_verify), 0, 0},
    {"--verify-all", FLAG, ANY, AT(verify_all), 0, 0},
    {"--ignore-end", FLAG, ANY, AT(ignore_end), 0, 0},
    {"--repeat", INTEGER, ANY, AT(repeat), 1, 1000000},
    {"--threads", INTEGER, ANY, AT(threads), 1, 1024},
    {"--batch", INTEGER, ANY, AT(generation.batch), 1, 1024},
    {"--generate", LENGTH, ANY, 0, 1, INT32_MAX},
    {"--min-new-tokens", INTEGER, ANY, AT(generation.min_new_tokens), 0, INT32_MAX},
    {"--no-repeat-ngram-size", INTEGER, ANY, AT(generation.no_repeat_ngram_size), 0, INT32_MAX},
    {"--num-beams", INTEGER, ANY, AT(generation.beams), 1, 64},
    {"--top-k", INTEGER, ANSWER | FILL | RANK | GENERATE, AT(top_k), 0, UINT32_MAX},
    {"--seed", INTEGER, ANY, AT(generation.seed), 0, INT64_MAX},
    {"--temperature", NUMBER, ANY, AT(generation.temperature), 0, 0},
    {"--top-p", NUMBER, ANY, AT(generation.top_p), 0, 0},
    {"--repetition-penalty", NUMBER, ANY, AT(generation.repetition_penalty), 0, 0},
    {"--length-penalty", NUMBER, ANY, AT(generation.length_penalty), 0, 0},
    {"--early-stopping", TEXT, ANY, AT(early_stopping), 0, 0},
};

#undef AT

static int64_t integer(const Option *option, const char *value) {
  char *end = NULL;
  errno = 0;
  long long number = strtoll(value, &end, 10);
  if (errno != 0 || end == value || *end != '\0' || number < option->least || number > option->most) {
    stop(EXIT_USAGE, "%s takes a number in %d..%lld, found '%s'", option->name, option->least, (long long)option->most, value);
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
static int set(Options *options, const Option *option, const char *value, const char *second) {
  char *to = (char *)options + option->to;
  if (option->kind == FLAG) {
    *(bool *)(void *)to = true;
    return 1;
  }
  if (value == NULL) stop(EXIT_USAGE, "%s needs a value; see --help", option->name);
  if (option->kind == TEXT) *(const char **)(void *)to = value;
  if (option->kind == PAIR) {
    if (second == NULL) stop(EXIT_USAGE, "%s needs two values; see --help", option->name);
    ((const char **)(void *)to)[0] = value;
    ((const char **)(void *)to)[1] = second;
    return 3;
  }
  if (option->kind == INTEGER) *(int64_t *)(void *)to = integer(option, value);
  if (option->kind == NUMBER) *(double *)(void *)to = number(option, value);
  if (option->kind == LENGTH) set_length(option, value, options);
  return 2;
}

/* Whether the command line changes how texts are generated. */
static bool changes_texts(const Options *options) {
  const edgeq_generation *g = &options->generation;
  return !isnan(g->temperature) || !isnan(g->top_p) || !isnan(g->repetition_penalty) || !isnan(g->length_penalty) ||
         g->seed >= 0 || g->beams >= 0 || g->no_repeat_ngram_size >= 0 || g->min_new_tokens >= 0 ||
         g->max_new_tokens >= 0 || g->early_stopping >= 0 || options->ignore_end || g->batch > 1;
}

/* A name and the number that it stands for. */
typedef struct {
  const char *name;
  int32_t value;
} Choice;

/* The number of a name; nothing changes if none is given. `known` ends with a NULL. */
static void choose(const char *option, const char *given, const Choice *known, const char *all, int32_t *value) {
  if (given == NULL) return;
  for (const Choice *choice = known; choice->name != NULL; choice++) {
    if (strcmp(choice->name, given) != 0) continue;
    *value = choice->value;
    return;
  }
  stop(EXIT_USAGE, "%s takes %s, found '%s'", option, all, given);
}

static void set_choices(Options *options) {
  static const Choice stopping[] = {{"no", EDGEQ_NOT_EARLY}, {"yes", EDGEQ_EARLY}, {"never", EDGEQ_NEVER_EARLY}, {NULL, 0}};
  static const Choice on_long[] = {{"error", EDGEQ_LONG_ERROR}, {"cut", EDGEQ_LONG_CUT}, {"split", EDGEQ_LONG_SPLIT}, {NULL, 0}};
  static const Choice aggregations[] = {{"none", EDGEQ_TAG_NONE},   {"simple", EDGEQ_TAG_SIMPLE},
                                        {"first", EDGEQ_TAG_FIRST}, {"average", EDGEQ_TAG_AVERAGE},
                                        {"max", EDGEQ_TAG_MAX},     {NULL, 0}};
  choose("--early-stopping", options->early_stopping, stopping, "yes, no or never", &options->generation.early_stopping);
  choose("--on-long", options->on_long, on_long, "error, cut or split", &options->reading.on_long);
  choose("--aggregation", options->aggregation, aggregations, "none, simple, first, average or max",
         &options->tagging.aggregation);
}

/* The parts of a text between commas; returns how many. */
static size_t split_list(const char *text, const char ***parts) {
  size_t length = strlen(text), count = 0;
  char *copy = reserve(length + 1, 1);
  *parts = reserve(length + 1, sizeof **parts);
  memcpy(copy, text, length);
  for (char *at = copy; at != NULL;) {
    char *comma = strchr(at, ',');
    if (comma != NULL) *comma = '\0';
    if (*at != '\0') (*parts)[count++] = at;
    at = comma != NULL ? comma + 1 : NULL;
  }
  return count;
}

static void set_lists(Options *options) {
  const char **parts = NULL;
  if (options->ignored != NULL) {
    options->tagging.ignored_count = split_list(options->ignored, &parts);
    options->tagging.ignored = parts;
  }
  if (options->targets != NULL) {
    size_t count = split_list(options->targets, &parts);
    if (count == 0) stop(EXIT_USAGE, "--targets names no token");
    edgeq_text *targets = reserve(count, sizeof *targets);
    for (size_t i = 0; i < count; i++) targets[i] = (edgeq_text){.text = parts[i], .size = strlen(parts[i])};
    options->filling.targets = targets;
    options->filling.target_count = count;
  }
  options->answering.may_be_none = options->may_be_none;
  if (options->top_k < 0) return;
  options->generation.top_k = options->generate ? options->top_k : -1;
  if (!options->generate && options->top_k == 0) stop(EXIT_USAGE, "--top-k takes a number from 1 on here, found '0'");
  options->answering.top_k = options->filling.top_k = options->top_k;
}

static void check_options(const Options *options) {
  const char *const sources[] = {options->text,    options->file, options->ids,       options->tensors,  options->profile,
                                 options->pair[0], options->pairs, options->documents, options->question, options->jsonl,
                                 options->csv};
  int jobs = options->self_test;
  for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) jobs += sources[i] != NULL;
  if (options->bundle == NULL) stop(EXIT_USAGE, "name a bundle, the folder that `edgeq compile` wrote; see --help");
  if (options->verify_all && options->no_verify) {
    stop(EXIT_USAGE, "--verify-all and --no-verify exclude each other; see --help");
  }
  if ((options->query != NULL) != (options->documents != NULL)) stop(EXIT_USAGE, "--query and --documents belong together");
  if (jobs != 1) {
    stop(EXIT_USAGE, "give one of --self-test, --text, --file, --pair, --pairs, --question, --documents, --jsonl, --csv, "
                     "--ids, --tensors and --profile; see --help");
  }
  if ((options->question != NULL) != (options->context != NULL)) stop(EXIT_USAGE, "--question and --context belong together");
  if (options->column != NULL && options->jsonl == NULL && options->csv == NULL) {
    stop(EXIT_USAGE, "--column belongs to --jsonl and --csv; leave it out");
  }
  if ((options->tensors != NULL) != (options->out != NULL)) {
    stop(EXIT_USAGE, "--tensors and --out belong together; see --help");
  }
  if (options->repeat > 0 && !has_texts(options) && options->profile == NULL) {
    stop(EXIT_USAGE, "--repeat needs texts, --ids or --profile; see --help");
  }
  if (options->generate && !has_texts(options)) stop(EXIT_USAGE, "--generate needs texts or --ids; see --help");
  if (options->tokens && (!needs_tokenizer(options) || options->generate || options->repeat > 0 || options->raw)) {
    stop(EXIT_USAGE, "--tokens goes with texts alone; see --help");
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
  long long threads = text != NULL ? strtoll(text, &end, 10) : 0;
  bool is_number = text != NULL && end != text && (*end == '\0' || *end == ',');
  return is_number && threads >= 1 && threads <= 1024 ? threads : 0;
}

Options read_options(int count, char **arguments) {
  Options options = {.bundle = own_bundle()};
  edgeq_generation *generation = &options.generation;
  edgeq_generation_defaults(generation);
  edgeq_text_defaults(&options.reading);
  edgeq_tag_defaults(&options.tagging);
  edgeq_answer_defaults(&options.answering);
  edgeq_fill_defaults(&options.filling);
  options.top_k = -1;
  for (int i = 1; i < count;) {
    const Option *option = NULL;
    for (size_t k = 0; k < sizeof KNOWN / sizeof *KNOWN; k++) {
      if (strcmp(arguments[i], KNOWN[k].name) == 0) option = &KNOWN[k];
    }
    if (option != NULL) {
      for (int job = 0; job < JOBS; job++) {
        if (!(option->jobs >> job & 1)) options.refused[job] = option->name;
      }
      i += set(&options, option, i + 1 < count ? arguments[i + 1] : NULL, i + 2 < count ? arguments[i + 2] : NULL);
    } else if (strcmp(arguments[i], "--help") == 0 || strcmp(arguments[i], "-h") == 0) {
      for (size_t k = 0; k < sizeof USAGE / sizeof *USAGE; k++) fputs(USAGE[k], stdout);
      exit(0);
    } else if ((arguments[i][0] == '-' && arguments[i][1] != '\0') || options.bundle != NULL) {
      stop(EXIT_USAGE, "unexpected argument '%s'; see --help", arguments[i]);
    } else {
      options.bundle = arguments[i++];
    }
  }
  if (options.threads == 0) options.threads = threads_of_environment();
  set_choices(&options);
  set_lists(&options);
  generation->ignore_end = options.ignore_end;
  check_options(&options);
  return options;
}
