/* libedgeq: runs bundles that `edgeq compile` made. C11, no dependency but the C library.
 *
 * A model (`edgeq_model`) is a bundle, opened once: code, mapped weights, tokenizer. It does not change afterwards, so
 * threads share it. A session (`edgeq_session`) runs it: it has the memory of a call, the caches of generated texts and
 * the threads of the kernels. One thread at a time uses a session; a second one gets EDGEQ_BUSY and changes nothing.
 *
 * Every function that can fail returns a status. The handle then holds one sentence that says what was expected, what
 * was found and what to do: edgeq_error() of a model, edgeq_session_error() of a session. The library never ends the
 * process, prints nothing, reads no environment variable and keeps no state outside of its handles.
 *
 * Structures that begin with `size` are filled in by the caller: set `size` to the size of the structure, and fields
 * that later versions add keep their defaults. Structures that the library returns may grow at their end. */
#ifndef EDGEQ_H
#define EDGEQ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#if defined(EDGEQ_BUILD_SHARED)
#define EDGEQ_API __declspec(dllexport)
#else
#define EDGEQ_API
#endif
#else
#define EDGEQ_API __attribute__((visibility("default")))
#endif

/* Version of this interface. A library serves every caller that was compiled for the same major version, and for the
 * same or an older minor one. */
#define EDGEQ_ABI_MAJOR 1
#define EDGEQ_ABI_MINOR 1

/* EDGEQ_ABI_MAJOR * 65536 + EDGEQ_ABI_MINOR of the library. */
EDGEQ_API uint32_t edgeq_abi_version(void);

/* How many threads 0 stands for in options: the cores that this process may run on, and no more than the quota of its
 * control groups keeps busy (Linux). */
EDGEQ_API int32_t edgeq_cores(void);

/* ---- status ---- */

typedef int32_t edgeq_status;

enum {
  EDGEQ_OK = 0,
  EDGEQ_FAILED = 1,      /* a run failed, or the system gave no file, thread or page */
  EDGEQ_USAGE = 2,       /* an argument, an option or an input makes no sense */
  EDGEQ_DAMAGED = 3,     /* a file of the bundle is damaged, or not what it should be */
  EDGEQ_UNSUPPORTED = 4, /* the bundle is for another processor, or of another format version */
  EDGEQ_NO_MEMORY = 5,
  EDGEQ_BUSY = 6,        /* another thread uses the session */
  EDGEQ_CANCELLED = 7,   /* a callback or edgeq_cancel ended the call */
  EDGEQ_END = 8          /* edgeq_generate_next: every text is complete */
};

/* ---- memory ---- */

/* Where the library takes its memory from. `allocate` returns zeroed memory, aligned like that of calloc, or NULL;
 * `release` gets what it returned, never NULL. Both may be called by any thread that uses a handle. Weights, code
 * and the stacks of threads do not come from here: they are mapped. */
typedef struct edgeq_allocator {
  void *context;
  void *(*allocate)(void *context, size_t bytes);
  void (*release)(void *context, void *memory);
} edgeq_allocator;

/* ---- tensors ---- */

enum { EDGEQ_MAX_RANK = 8, EDGEQ_ALIGNMENT = 64 };

enum {
  EDGEQ_FLOAT32 = 0,
  EDGEQ_FLOAT16 = 1,
  EDGEQ_INT64 = 2,
  EDGEQ_INT32 = 3,
  EDGEQ_INT16 = 4,
  EDGEQ_UINT16 = 5,
  EDGEQ_INT8 = 6,
  EDGEQ_UINT8 = 7,
  EDGEQ_BOOL = 8 /* a byte, 0 or 1 */
};

/* A tensor in memory: C order, no gaps. */
typedef struct edgeq_tensor {
  int32_t type; /* EDGEQ_FLOAT32 ... */
  int32_t rank;
  int64_t shape[EDGEQ_MAX_RANK];
  void *data;
  size_t bytes;
} edgeq_tensor;

/* What a function of the model takes or gives. */
typedef struct edgeq_tensor_info {
  const char *name;
  int32_t type;
  int32_t rank;
  int64_t shape[EDGEQ_MAX_RANK];          /* -1 where a call chooses the size */
  const char *dimensions[EDGEQ_MAX_RANK]; /* name of such a size; NULL where it is fixed */
  int32_t has_minimum, has_maximum, has_default;
  int32_t reserved;
  int64_t minimum, maximum, default_value; /* of the values */
} edgeq_tensor_info;

/* Functions of a model: all have `main`; those that read an encoder input before they write have `encode`. */
enum { EDGEQ_MAIN = 0, EDGEQ_ENCODE = 1, EDGEQ_FUNCTIONS = 2 };

/* ---- models ---- */

typedef struct edgeq_model edgeq_model;
typedef struct edgeq_session edgeq_session;

/* A compiled kernel that is linked into the program, where code cannot be loaded from the bundle: `edgeq compile --form
 * sources` writes the table. A name is that of the plan, "KERNEL", or "VARIANT/KERNEL" for one level of processors. Entries
 * that are named like what kernels call ("__TVMBackendParallelLaunch") hold the address of a pointer, which the library
 * fills in. "fingerprint/..." says which kernels these are; a bundle without code is opened only with its own. */
typedef struct edgeq_kernel {
  const char *name;
  void *address;
} edgeq_kernel;

typedef struct edgeq_open_options {
  size_t size;                      /* sizeof(edgeq_open_options) */
  const edgeq_allocator *allocator; /* NULL: calloc and free. Is copied */
  const char *variant;              /* name of a target in the bundle; NULL: the best that this processor can run */
  int32_t threads;                  /* that compare SHA-256; 0: every core */
  int32_t skip_digests;             /* 1: compare no file but the manifest with its digest */
  const edgeq_kernel *kernels;      /* NULL: load the bundle's code */
  size_t kernel_count;
  int32_t verify_all;               /* 1: compare every file with its SHA-256 before anything else is done */
  int32_t reserved;
} edgeq_open_options;

/* Opens the bundle at `path`, a folder or a file that `edgeq pack` made: picks the code for this processor, maps the
 * weights. What a result depends on is compared with its digest before it is used: the manifest with its SHA-256, code and
 * tokenizer with their CRC-32 here, and weights block by block when a call first reads them, which then fails with
 * EDGEQ_DAMAGED. That finds damage. What somebody changed on purpose only SHA-256 finds: every file is compared with it,
 * here, with `verify_all`, and always if the bundle is signed (has a manifest.json.minisig). `options` may be NULL.
 * `*model` is set also when this fails, to a handle that holds the sentence (NULL only if there is no memory even for
 * that), and is to be closed. */
EDGEQ_API edgeq_status edgeq_open(const char *path, const edgeq_open_options *options, edgeq_model **model);

/* The same for a packed bundle in memory, aligned to EDGEQ_ALIGNMENT, which the caller keeps until the model is closed. */
EDGEQ_API edgeq_status edgeq_open_memory(const void *data, size_t size, const edgeq_open_options *options,
                                         edgeq_model **model);

/* Gives back what the model has. Its sessions must be closed before. NULL is allowed. */
EDGEQ_API void edgeq_close(edgeq_model *model);

/* Why edgeq_open failed; an empty text if it did not. NULL says that there is no memory. */
EDGEQ_API const char *edgeq_error(const edgeq_model *model);

/* What the bundle is for. */
typedef struct edgeq_info {
  const char *task;         /* "embed", "classify", "generate" (continues a prompt), "seq2seq" (from an encoder input) */
  const char *architecture; /* as in the checkpoint's config.json */
  const char *variant;      /* target whose code runs */
  const char *pooling;      /* "mean", "cls", "max": how token vectors become one */
  int32_t normalize;        /* 1: embeddings have length 1 */
  int32_t has_tokenizer;    /* 1: texts can be given, 0: token ids only */
  int64_t longest;          /* most tokens of a text; 0 if nothing limits it */
  int64_t context;          /* most tokens of a generated text with its prompt; 0 for models that make none */
  int64_t source_context;   /* most tokens of an encoder input; 0 for models that read none */
  int64_t vocabulary;       /* of models that generate text, else 0 */
  int64_t width;            /* values of an embedding, or number of classes; 0 for models that generate text */
  const char *const *labels;
  size_t label_count; /* may be less than the classes */
} edgeq_info;

EDGEQ_API const edgeq_info *edgeq_model_info(const edgeq_model *model);

/* manifest.json as it lies in the bundle: JSON of `*size` bytes, no end mark. */
EDGEQ_API const char *edgeq_manifest(const edgeq_model *model, size_t *size);

/* Where address 0 of the bundle's code file lies in memory, for profilers; NULL if the code is linked in. */
EDGEQ_API const void *edgeq_code(const edgeq_model *model);

/* Inputs, outputs and state (caches that stay from call to call) of a function: 0 and NULL beyond what there is. */
EDGEQ_API size_t edgeq_input_count(const edgeq_model *model, int32_t function);
EDGEQ_API size_t edgeq_output_count(const edgeq_model *model, int32_t function);
EDGEQ_API size_t edgeq_state_count(const edgeq_model *model, int32_t function);
EDGEQ_API const edgeq_tensor_info *edgeq_input_info(const edgeq_model *model, int32_t function, size_t index);
EDGEQ_API const edgeq_tensor_info *edgeq_output_info(const edgeq_model *model, int32_t function, size_t index);
EDGEQ_API const edgeq_tensor_info *edgeq_state_info(const edgeq_model *model, int32_t function, size_t index);

/* Stored runs of the self-test. edgeq_golden fills in as many tensors as the function has inputs and outputs; their
 * data is the bundle's and must not be changed. EDGEQ_DAMAGED if it is not as its digest says. */
EDGEQ_API size_t edgeq_golden_count(const edgeq_model *model);
EDGEQ_API edgeq_status edgeq_golden(const edgeq_model *model, size_t index, int32_t *function, edgeq_tensor *inputs,
                                    edgeq_tensor *outputs);

/* ---- sessions ---- */

/* Runs piece 0 to pieces - 1 of `work`, on any threads, and returns when all are done. */
typedef void (*edgeq_parallel_for)(void *context, int32_t pieces, void (*piece)(void *work, int32_t number), void *work);

typedef struct edgeq_session_options {
  size_t size;                      /* sizeof(edgeq_session_options) */
  const edgeq_allocator *allocator; /* NULL: as the model's. Is copied */
  int32_t threads;                  /* of the kernels, the caller's included; 0: every core. Results do not depend on it */
  int32_t processor_count;
  const int32_t *processors;        /* numbers of the processors on which the session's own threads may run; NULL: all */
  edgeq_parallel_for parallel_for;  /* NULL: threads of the session's own */
  void *parallel_context;
} edgeq_session_options;

/* `options` may be NULL. `*session` is set as by edgeq_open. Threads start with the first call that needs them. */
EDGEQ_API edgeq_status edgeq_session_open(const edgeq_model *model, const edgeq_session_options *options,
                                          edgeq_session **session);
EDGEQ_API void edgeq_session_close(edgeq_session *session);

/* Why the newest call that failed did so. Valid until the next call; NULL says that there is no memory. */
EDGEQ_API const char *edgeq_session_error(const edgeq_session *session);

/* Ends the call that runs in the session, if any, which then returns EDGEQ_CANCELLED: from any thread, a callback or a
 * signal handler. Generated text up to there can be asked for. */
EDGEQ_API void edgeq_cancel(edgeq_session *session);

/* Makes the caches empty, for `batch` sequences. A call of a function with state on a session that was not reset for its
 * batch resets it. */
EDGEQ_API edgeq_status edgeq_reset(edgeq_session *session, int64_t batch);

/* The caches as they are: state `index` of EDGEQ_MAIN. Valid until the session is reset or closed. */
EDGEQ_API edgeq_status edgeq_state(edgeq_session *session, size_t index, edgeq_tensor *tensor);

/* Runs a function. `inputs` are as many as it has, in order; they are copied, then checked, so another thread may change
 * them meanwhile. An input whose `data` is NULL gets its default value, in the shape given, or with rank 0 in the shape
 * that follows from the others. `outputs` is filled in; their data is the session's and valid until its next call. */
EDGEQ_API edgeq_status edgeq_run(edgeq_session *session, int32_t function, const edgeq_tensor *inputs,
                                 edgeq_tensor *outputs);

/* Bytes of memory beside weights and caches that edgeq_run takes for inputs of these types and shapes (data is not
 * looked at), and a way to give that memory to the session: aligned to EDGEQ_ALIGNMENT, until the session is closed or
 * NULL is given. A call that needs more than was given fails. */
EDGEQ_API edgeq_status edgeq_arena_bytes(edgeq_session *session, int32_t function, const edgeq_tensor *inputs,
                                         uint64_t *bytes);
EDGEQ_API edgeq_status edgeq_give_arena(edgeq_session *session, void *memory, size_t bytes);

/* Runs the golden inputs: `*values` values were compared, `*differing` of them differ in a bit. Both may be NULL.
 * EDGEQ_FAILED if any differs. */
EDGEQ_API edgeq_status edgeq_self_test(edgeq_session *session, uint64_t *values, uint64_t *differing);

/* A kernel that has run. Bytes are those of all its tensors, and of those that are weights. */
typedef struct edgeq_kernel_time {
  const char *name;
  size_t step; /* its place in the plan */
  double seconds;
  uint64_t bytes, weight_bytes;
} edgeq_kernel_time;

/* Calls `watch` after every kernel, in the calling thread; NULL ends it. */
EDGEQ_API edgeq_status edgeq_watch_kernels(edgeq_session *session,
                                           void (*watch)(void *context, const edgeq_kernel_time *kernel), void *context);

/* ---- texts ---- */

/* A text in UTF-8, or token ids where `text` is NULL. */
typedef struct edgeq_text {
  const char *text;
  size_t size; /* bytes */
  const int64_t *ids;
  size_t id_count;
  const char *name; /* what sentences call it; NULL: "text 1" and so on */
} edgeq_text;

/* Token ids of a text, with the tokens that the model wants around them. Valid until the session's next call. */
EDGEQ_API edgeq_status edgeq_tokenize(edgeq_session *session, const edgeq_text *text, const int64_t **ids, size_t *count);

/* The text of token ids; special tokens give none. It also has an end mark. Valid until the session's next call. */
EDGEQ_API edgeq_status edgeq_detokenize(edgeq_session *session, const int64_t *ids, size_t count, const char **text,
                                        size_t *size);

/* Whether the model takes these texts: their characters, tokens and lengths, without running them. */
EDGEQ_API edgeq_status edgeq_check_texts(edgeq_session *session, const edgeq_text *texts, size_t count);

/* Runs texts, `batch` (at least 1) at a time, on which nothing depends but the time. Every text is checked before the
 * first is run. `values` gets [count, width] float32: embeddings, pooled and normalized as the bundle says, or for
 * classifiers logits. `tokens`, if not NULL, gets the number of tokens of each text. */
EDGEQ_API edgeq_status edgeq_embed(edgeq_session *session, const edgeq_text *texts, size_t count, size_t batch,
                                   float *values, size_t *tokens);

/* The same for classifiers, with what the bundle makes of the logits in `scores` [count, width], if that is not NULL:
 * probabilities of classes, or the numbers themselves. */
EDGEQ_API edgeq_status edgeq_classify(edgeq_session *session, const edgeq_text *texts, size_t count, size_t batch,
                                      float *logits, double *scores, size_t *tokens);

/* Which text of a pair loses tokens if both together are too long: the longer one, token by token, or always the same. */
enum { EDGEQ_LONGEST_FIRST = 0, EDGEQ_ONLY_FIRST = 1, EDGEQ_ONLY_SECOND = 2 };

/* What becomes of a text that is longer than the model takes: what the model's folder says, which cuts it or refuses it;
 * it is refused; it is cut; it is read in several rows. */
enum { EDGEQ_LONG_AS_MODEL = 0, EDGEQ_LONG_ERROR = 1, EDGEQ_LONG_CUT = 2, EDGEQ_LONG_SPLIT = 3 };

/* How texts are read. edgeq_text_defaults sets everything to its default. */
typedef struct edgeq_text_options {
  size_t size;               /* sizeof(edgeq_text_options) */
  const edgeq_text *seconds; /* for each text the one that the model reads with it; one without text and ids is none.
                                Default NULL: no pairs */
  const char *prompt_name;   /* which of the model's prompts is put before every text. NULL: the model's default */
  int64_t batch;             /* so many rows run together. 0: those of about the same length, within the budget */
  int64_t token_budget;      /* most tokens that run together, padding included. Default 256 */
  int64_t max_tokens;        /* of a row, special ones included. 0: as many as the model takes */
  int64_t overlap;           /* tokens that rows of a split text have in common. Default -1: as the task wants it */
  int32_t on_long;           /* EDGEQ_LONG_AS_MODEL and so on */
  int32_t truncation;        /* EDGEQ_LONGEST_FIRST and so on */
  int64_t first_number;      /* sentences call texts without a name by numbers from here on. Default 1 */
} edgeq_text_options;

EDGEQ_API void edgeq_text_defaults(edgeq_text_options *options);

/* How a text was read. */
typedef struct edgeq_reading {
  size_t tokens; /* that the model has read of it, special ones and those of a prompt included */
  size_t rows;   /* 1, or more if it was split */
  int32_t is_cut; /* 1: tokens at an end were cut off */
  int32_t reserved;
} edgeq_reading;

enum { EDGEQ_SPECIAL_TOKEN = -1 };

/* A token of a row. Characters are code points, bytes those of UTF-8; both count from the start of the token's text, with
 * its prompt. */
typedef struct edgeq_token {
  int64_t id;
  int32_t type;     /* as the input token_type_ids wants it */
  int32_t sequence; /* 0: of the text, 1: of its second, EDGEQ_SPECIAL_TOKEN: put between them */
  size_t start, end;
  size_t start_byte, end_byte;
  size_t word; /* tokens of one word of a text have the same number */
} edgeq_token;

typedef struct edgeq_row {
  const edgeq_token *tokens;
  size_t count;
} edgeq_row;

/* What a text becomes: one row, or several with EDGEQ_LONG_SPLIT. */
typedef struct edgeq_encoding {
  const edgeq_row *rows;
  size_t count;
  edgeq_reading reading;
} edgeq_encoding;

/* Tokens of a text or a pair with their places. `options` may be NULL. Valid until the session's next call. */
EDGEQ_API edgeq_status edgeq_encode(edgeq_session *session, const edgeq_text *text, const edgeq_text_options *options,
                                    edgeq_encoding *encoding);

/* The same as edgeq_embed and edgeq_classify, with a way to read pairs, to choose a prompt, and to take long texts.
 * `options`, `scores` and `readings` [count] may be NULL. Of a split text the values are the average of its rows, each
 * counted by its tokens; embeddings of length 1 keep that length. */
EDGEQ_API edgeq_status edgeq_embed_texts(edgeq_session *session, const edgeq_text *texts, size_t count,
                                         const edgeq_text_options *options, float *values, edgeq_reading *readings);
EDGEQ_API edgeq_status edgeq_classify_texts(edgeq_session *session, const edgeq_text *texts, size_t count,
                                            const edgeq_text_options *options, float *logits, double *scores,
                                            edgeq_reading *readings);

/* What the tasks below find is the session's and valid until its next call. Texts have no end mark but labels. Places are
 * counted as those of edgeq_token. */

/* How the labels of tokens become those of parts of a text, as transformers' `aggregation_strategy`: not at all; tokens of
 * one kind that follow each other; and before that, a word gets the label of its first token, that of the average of its
 * tokens' scores, or that of the token with the greatest score. */
enum { EDGEQ_TAG_NONE = 0, EDGEQ_TAG_SIMPLE = 1, EDGEQ_TAG_FIRST = 2, EDGEQ_TAG_AVERAGE = 3, EDGEQ_TAG_MAX = 4 };

typedef struct edgeq_tag_options {
  size_t size;                /* sizeof(edgeq_tag_options) */
  const char *const *ignored; /* labels that are left out. Default: "O" */
  size_t ignored_count;
  int32_t aggregation;        /* default EDGEQ_TAG_SIMPLE */
  int32_t reserved;
} edgeq_tag_options;

EDGEQ_API void edgeq_tag_defaults(edgeq_tag_options *options);

typedef struct edgeq_entity {
  const char *label; /* without its B- or I-, unless with EDGEQ_TAG_NONE */
  const char *word;  /* made of the tokens' names; what stands in the text is at `start_byte` */
  size_t word_size;
  double score;
  size_t start, end;
  size_t start_byte, end_byte;
  size_t index; /* of the token in its row, with EDGEQ_TAG_NONE */
} edgeq_entity;

typedef struct edgeq_entities {
  const edgeq_entity *items;
  size_t count;
} edgeq_entities;

/* Labels parts of texts. `found` gets [count] lists in the order of each text. Of a split text, rows have a quarter of
 * their tokens in common unless `overlap` says otherwise, and of entities that overlap the longest stays. */
EDGEQ_API edgeq_status edgeq_tag(edgeq_session *session, const edgeq_text *texts, size_t count,
                                 const edgeq_text_options *options, const edgeq_tag_options *tagging,
                                 edgeq_entities *found, edgeq_reading *readings);

typedef struct edgeq_answer_options {
  size_t size;             /* sizeof(edgeq_answer_options) */
  int64_t top_k;           /* most answers to a question. Default 1 */
  int64_t longest;         /* most tokens of an answer. Default 15 */
  int32_t may_be_none;     /* 1: that there is no answer is one too, with an empty text */
  int32_t splits_words;    /* 1: an answer may start and end inside of words */
} edgeq_answer_options;

EDGEQ_API void edgeq_answer_defaults(edgeq_answer_options *options);

typedef struct edgeq_answer {
  const char *text; /* as it stands in the context */
  size_t text_size;
  double score;
  size_t start, end; /* of the context */
  size_t start_byte, end_byte;
} edgeq_answer;

typedef struct edgeq_answers {
  const edgeq_answer *items;
  size_t count;
} edgeq_answers;

/* Finds answers to questions: `texts` are the questions, `options->seconds` their contexts, which are always read in rows
 * of at most 384 tokens (or `max_tokens`) if they are longer; rows have 128 tokens (or `overlap`) in common, or half of
 * theirs if that is less. `found` gets [count] lists, the best answer first. */
EDGEQ_API edgeq_status edgeq_find_answers(edgeq_session *session, const edgeq_text *texts, size_t count,
                                          const edgeq_text_options *options, const edgeq_answer_options *answering,
                                          edgeq_answers *found, edgeq_reading *readings);

typedef struct edgeq_fill_options {
  size_t size;               /* sizeof(edgeq_fill_options) */
  const edgeq_text *targets; /* tokens to choose from: by name, or the first token of a text. Default NULL: all */
  size_t target_count;
  int64_t top_k;             /* tokens for each mask. Default 5 */
} edgeq_fill_options;

EDGEQ_API void edgeq_fill_defaults(edgeq_fill_options *options);

typedef struct edgeq_filling {
  int64_t token;
  double score;
  const char *text; /* of the token */
  size_t text_size;
  const char *sequence; /* the whole text with the token in the mask's place */
  size_t sequence_size;
} edgeq_filling;

/* What fits into the masks of a text: `per_mask` fillings for the first one, the best first, then for the next. */
typedef struct edgeq_fillings {
  const edgeq_filling *items;
  size_t masks, per_mask;
} edgeq_fillings;

EDGEQ_API edgeq_status edgeq_fill(edgeq_session *session, const edgeq_text *texts, size_t count,
                                  const edgeq_text_options *options, const edgeq_fill_options *filling,
                                  edgeq_fillings *found, edgeq_reading *readings);

typedef struct edgeq_ranked {
  size_t index; /* of the document */
  double score;
} edgeq_ranked;

/* Sorts documents by how well they fit a query: pairs through a classifier with one class. `ranked` gets [count], the best
 * first, of equal ones the first first. `readings` [count] are in the documents' order, and may be NULL, as `options`. */
EDGEQ_API edgeq_status edgeq_rank(edgeq_session *session, const edgeq_text *query, const edgeq_text *documents,
                                  size_t count, const edgeq_text_options *options, edgeq_ranked *ranked,
                                  edgeq_reading *readings);

/* ---- generated texts ---- */

enum { EDGEQ_NOT_EARLY = 0, EDGEQ_EARLY = 1, EDGEQ_NEVER_EARLY = 2 };

/* How texts are generated. edgeq_generation_defaults sets everything to "as the model's generation_config.json says": NaN for
 * numbers, -1 for integers. */
typedef struct edgeq_generation {
  size_t size;              /* sizeof(edgeq_generation) */
  double temperature;       /* 0: the most likely token, always */
  double top_p;             /* draw from the most likely tokens that together have this probability */
  double repetition_penalty;
  double length_penalty;    /* beam search: above 0 favours longer texts */
  int64_t top_k;            /* draw from so many most likely tokens; 0: all */
  int64_t seed;
  int64_t beams;            /* 1: no beam search. More are for models that read an encoder input */
  int64_t no_repeat_ngram_size;
  int64_t min_new_tokens;
  int64_t max_new_tokens;
  int32_t early_stopping;   /* -1, EDGEQ_NOT_EARLY, EDGEQ_EARLY, EDGEQ_NEVER_EARLY */
  int32_t ignore_end;       /* 1: go on after the token that ends a text */
  int64_t batch;            /* most texts that run together: others begin where one is complete. Default 1 */
  const char *const *stop;  /* texts that end a text, and are cut off. Default none */
  size_t stop_count;
} edgeq_generation;

EDGEQ_API void edgeq_generation_defaults(edgeq_generation *generation);

enum {
  EDGEQ_UNFINISHED = 0,
  EDGEQ_FINISH_END = 1,    /* a token that ends the text */
  EDGEQ_FINISH_LENGTH = 2, /* as many tokens as were asked for */
  EDGEQ_FINISH_CONTEXT = 3, /* the context is full */
  EDGEQ_FINISH_STOP = 4    /* a stop text */
};

/* A token as it comes. Everything it points to is valid until the next call. */
typedef struct edgeq_piece {
  size_t index;      /* of the text */
  int64_t token;
  const char *text;  /* characters that are certain now; often none, as when a character is not complete */
  size_t text_size;
  const float *logits; /* [vocabulary] from which the token was chosen; NULL with beam search */
  int32_t finish;    /* EDGEQ_UNFINISHED, or why this is the text's last token */
  int32_t reserved;
} edgeq_piece;

/* A text that is complete, or as far as it was made. Valid until the session's next edgeq_generate_start. */
typedef struct edgeq_generated {
  const int64_t *ids; /* every token that was made, one that ended the text included */
  size_t id_count;
  const char *text;   /* without a stop text; empty if the bundle has no tokenizer */
  size_t text_size;
  size_t prompt_tokens;
  double score;       /* beam search: log-probability divided by length to the power of the penalty; else NaN */
  double seconds;     /* from the first token to the last */
  int32_t finish;
  int32_t reserved;
} edgeq_generated;

/* Prepares texts: prompts, or encoder inputs. Every one is checked. `options` may be NULL.
 * Texts, ids and stop texts are copied. */
EDGEQ_API edgeq_status edgeq_generate_start(edgeq_session *session, const edgeq_text *texts, size_t count,
                                            const edgeq_generation *options);

/* The same for texts that come one after the other: forgets all texts, and lets at most `batch` of those that are added
 * from now on run together. A text that is added while others are made joins them as soon as there is room, and leaves
 * when it is complete; each has options of its own (without beam search; `batch` of them is not looked at). `index` gets
 * the text's number. A text that nobody waits for, complete or not, is dropped: its number may then be given to
 * another one. What a text gives does not depend on the others. */
EDGEQ_API edgeq_status edgeq_generate_open(edgeq_session *session, int64_t batch);
EDGEQ_API edgeq_status edgeq_generate_add(edgeq_session *session, const edgeq_text *text,
                                          const edgeq_generation *options, size_t *index);
EDGEQ_API edgeq_status edgeq_generate_drop(edgeq_session *session, size_t index);

/* Makes the next token of any text. EDGEQ_END when every text is complete. */
EDGEQ_API edgeq_status edgeq_generate_next(edgeq_session *session, edgeq_piece *piece);

/* What was generated for text `index` so far. */
EDGEQ_API edgeq_status edgeq_generate_result(edgeq_session *session, size_t index, edgeq_generated *generated);

/* All of it: calls `on_piece`, if not NULL, for each token, which ends it (EDGEQ_CANCELLED) by returning anything but 0.
 * The results can be asked for afterwards. */
EDGEQ_API edgeq_status edgeq_generate(edgeq_session *session, const edgeq_text *texts, size_t count,
                                      const edgeq_generation *options,
                                      int32_t (*on_piece)(void *context, const edgeq_piece *piece), void *context);

#ifdef __cplusplus
}
#endif

#endif
