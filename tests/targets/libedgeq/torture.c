/* Does all that the library can do with a bundle, as the second argument says: `memory` refuses every single allocation
 * once, `steady` counts those of repeated calls and of tokens,
 * `fork` goes on in a child, `threads` runs several sessions at once and one session twice. What is wrong is
 * printed, and the exit code is 1. */
#include <edgeq.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static atomic_long live, made;
static long left = -1; /* allocations until one is refused; below 0 none is */

static void *allocate_counted(void *context, size_t bytes) {
  (void)context;
  if (left == 0) return NULL;
  if (left > 0) left--;
  live++;
  made++;
  return calloc(1, bytes);
}

static void release_counted(void *context, void *memory) {
  (void)context;
  live--;
  free(memory);
}

static const edgeq_allocator ALLOCATOR = {NULL, allocate_counted, release_counted};
static const int64_t IDS[] = {5, 6, 7, 8};
static const edgeq_text TEXTS[] = {{.ids = IDS, .id_count = 4}, {.ids = IDS + 1, .id_count = 2}};

static edgeq_status use_texts(edgeq_session *session) {
  const edgeq_text text = {.text = "w1 w5 the cat", .size = 13};
  const int64_t *ids;
  const char *back;
  size_t count, size;
  edgeq_encoding encoding;
  edgeq_text_options how;
  edgeq_text_defaults(&how);
  how.seconds = &text;
  how.max_tokens = 8;
  how.on_long = EDGEQ_LONG_SPLIT;
  edgeq_status status = edgeq_tokenize(session, &text, &ids, &count);
  if (status == EDGEQ_OK) status = edgeq_encode(session, &text, &how, &encoding);
  return status != EDGEQ_OK ? status : edgeq_detokenize(session, IDS, 4, &back, &size);
}

/* Texts that come and go while others are made. */
static edgeq_status use_added_texts(edgeq_session *session, const edgeq_generation *how) {
  edgeq_piece piece;
  size_t index = 0, first = 0;
  edgeq_status status = edgeq_generate_open(session, 2);
  for (int i = 0; i < 4 && status == EDGEQ_OK; i++) {
    status = edgeq_generate_add(session, &TEXTS[i % 2], how, &index);
    if (status == EDGEQ_OK) status = edgeq_generate_next(session, &piece);
    if (status == EDGEQ_OK && i == 2) status = edgeq_generate_drop(session, first);
    first = i == 0 ? index : first;
  }
  while (status == EDGEQ_OK) status = edgeq_generate_next(session, &piece);
  return status == EDGEQ_END ? edgeq_generate_drop(session, index) : status;
}

static edgeq_status use_generation(edgeq_session *session, const edgeq_info *info) {
  edgeq_generation how;
  const char *const stops[] = {"x", "yz"};
  edgeq_generation_defaults(&how);
  how.max_new_tokens = 5;
  how.batch = 2;
  if (info->has_tokenizer) {
    how.stop = stops;
    how.stop_count = 2;
  }
  edgeq_status status = edgeq_generate(session, TEXTS, 2, &how, NULL, NULL);
  how.beams = 1;
  if (status == EDGEQ_OK) status = use_added_texts(session, &how);
  if (status != EDGEQ_OK || info->source_context == 0) return status;
  how.beams = 3;
  how.stop_count = 0;
  return edgeq_generate(session, TEXTS, 2, &how, NULL, NULL);
}

static const edgeq_text WORDS[] = {{.text = "w1 the cat [MASK] left", .size = 22}, {.text = "w2 Jane", .size = 7}};

static edgeq_status use_task(edgeq_session *session, const edgeq_info *info, const edgeq_text_options *how) {
  edgeq_entities entities[2];
  edgeq_answers answers[2];
  edgeq_fillings fillings[2];
  edgeq_fill_options filling;
  edgeq_fill_defaults(&filling);
  filling.targets = WORDS + 1;
  filling.target_count = 1;
  if (strcmp(info->task, "tag") == 0) return edgeq_tag(session, WORDS, 2, how, NULL, entities, NULL);
  if (strcmp(info->task, "fill") == 0) return edgeq_fill(session, WORDS, 1, how, &filling, fillings, NULL);
  return edgeq_find_answers(session, WORDS, 2, how, NULL, answers, NULL);
}

static edgeq_status use_vectors(edgeq_session *session, const edgeq_info *info) {
  size_t count = 2 * (size_t)info->width;
  edgeq_text_options how;
  edgeq_text_defaults(&how);
  if (strcmp(info->task, "answer") == 0) how.seconds = WORDS;
  bool classifies = strcmp(info->task, "classify") == 0;
  if (!classifies && strcmp(info->task, "embed") != 0) return use_task(session, info, &how);
  float *values = calloc(count, sizeof *values);
  double *scores = calloc(count, sizeof *scores);
  edgeq_ranked ranked[2];
  edgeq_reading readings[2];
  edgeq_status status = classifies ? edgeq_classify(session, TEXTS, 2, 2, values, scores, NULL)
                                   : edgeq_embed(session, TEXTS, 2, 2, values, NULL);
  if (status == EDGEQ_OK && classifies && info->width == 1) {
    status = edgeq_rank(session, &WORDS[0], WORDS, 2, NULL, ranked, readings);
  }
  if (status == EDGEQ_OK && !classifies) {
    how.max_tokens = 6;
    how.on_long = EDGEQ_LONG_SPLIT;
    status = edgeq_embed_texts(session, WORDS, 2, &how, values, readings);
  }
  free(values);
  free(scores);
  return status;
}

static edgeq_status use_all(const char *bundle) {
  edgeq_model *model = NULL;
  edgeq_session *session = NULL;
  const edgeq_open_options options = {.size = sizeof options, .allocator = &ALLOCATOR, .threads = 2};
  const edgeq_session_options how = {.size = sizeof how, .threads = 2};
  edgeq_status status = edgeq_open(bundle, &options, &model);
  if (status == EDGEQ_OK) {
    const edgeq_info *info = edgeq_model_info(model);
    status = edgeq_session_open(model, &how, &session);
    if (status == EDGEQ_OK) status = edgeq_self_test(session, NULL, NULL);
    if (status == EDGEQ_OK && info->has_tokenizer) status = use_texts(session);
    if (status == EDGEQ_OK) status = info->context > 0 ? use_generation(session, info) : use_vectors(session, info);
  }
  const char *sentence = session != NULL ? edgeq_session_error(session) : edgeq_error(model);
  if (status != EDGEQ_OK && strstr(sentence, "out of memory") == NULL) printf("status %d: %s\n", (int)status, sentence);
  edgeq_session_close(session);
  edgeq_close(model);
  return status;
}

static int refuse_memory(const char *bundle) {
  if (use_all(bundle) != EDGEQ_OK || live != 0) return 1;
  long count = made;
  for (long i = 0; i < count; i++) {
    left = i;
    edgeq_status status = use_all(bundle);
    if (status != EDGEQ_NO_MEMORY || live != 0) {
      printf("allocation %ld refused: status %d, %ld blocks left\n", i, (int)status, (long)live);
      return 1;
    }
  }
  printf("%ld allocations refused, one by one\n", count);
  return 0;
}

/* ---- calls that take no memory ---- */

/* Allocations while `call` runs again after it ran twice. */
static long taken_again(edgeq_status (*call)(edgeq_session *session), edgeq_session *session) {
  for (int i = 0; i < 2; i++) {
    if (call(session) != EDGEQ_OK) exit(1);
  }
  long before = made;
  if (call(session) != EDGEQ_OK) exit(1);
  return made - before;
}

static edgeq_status call_tensors(edgeq_session *session) { return edgeq_self_test(session, NULL, NULL); }

static edgeq_status call_vectors(edgeq_session *session) {
  static float values[2 * 4096];
  return edgeq_embed(session, TEXTS, 2, 2, values, NULL);
}

static edgeq_status call_tokenizer(edgeq_session *session) { return use_texts(session); }

/* Those of all tokens of a text but the first two: the first reads the prompt, the second is the first of its sizes. */
static long taken_by_tokens(edgeq_session *session, int64_t tokens, double temperature) {
  edgeq_generation how;
  edgeq_piece piece;
  long before = 0, count = 0;
  edgeq_generation_defaults(&how);
  how.max_new_tokens = tokens;
  how.ignore_end = 1;
  how.temperature = temperature;
  how.batch = 2;
  if (edgeq_generate_start(session, TEXTS, 2, &how) != EDGEQ_OK) exit(1);
  while (edgeq_generate_next(session, &piece) == EDGEQ_OK) {
    if (++count == 4) before = made;
  }
  if (count != 2 * tokens) exit(1);
  return made - before;
}

static int take_no_memory(const char *bundle) {
  edgeq_model *model = NULL;
  edgeq_session *session = NULL;
  const edgeq_open_options options = {.size = sizeof options, .allocator = &ALLOCATOR};
  const edgeq_session_options how = {.size = sizeof how, .threads = 2};
  long taken = 0;
  if (edgeq_open(bundle, &options, &model) != EDGEQ_OK || edgeq_session_open(model, &how, &session) != EDGEQ_OK) return 1;
  const edgeq_info *info = edgeq_model_info(model);
  printf("tensors: %ld\n", taken += taken_again(call_tensors, session));
  if (info->has_tokenizer) printf("tokenizer: %ld\n", taken += taken_again(call_tokenizer, session));
  if (strcmp(info->task, "embed") == 0) printf("texts: %ld\n", taken += taken_again(call_vectors, session));
  if (info->context > 0) printf("most likely: %ld\n", taken += taken_by_tokens(session, 20, 0));
  if (info->context > 0) printf("drawn: %ld\n", taken += taken_by_tokens(session, 20, 0.9));
  edgeq_session_close(session);
  edgeq_close(model);
  return taken == 0 && live == 0 ? 0 : 1;
}

static edgeq_session *open_session(const edgeq_model *model, int threads) {
  edgeq_session *session = NULL;
  const edgeq_session_options how = {.size = sizeof how, .threads = threads};
  if (edgeq_session_open(model, &how, &session) != EDGEQ_OK) exit(1);
  return session;
}

static void *run_own(void *model) {
  for (int i = 0; i < 3; i++) {
    edgeq_session *session = open_session(model, 3);
    for (int k = 0; k < 3; k++) {
      if (edgeq_self_test(session, NULL, NULL) != EDGEQ_OK) exit(1);
    }
    edgeq_session_close(session);
  }
  return NULL;
}

/* Every call works, or says that the other thread is at work. */
static void *run_shared(void *session) {
  long done = 0;
  for (int i = 0; i < 100; i++) {
    edgeq_status status = edgeq_self_test(session, NULL, NULL);
    if (status != EDGEQ_OK && status != EDGEQ_BUSY) exit(1);
    done += status == EDGEQ_OK;
  }
  return (void *)done;
}

static int use_threads(edgeq_model *model) {
  pthread_t threads[3];
  void *done[2];
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, run_own, model);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  edgeq_session *session = open_session(model, 2);
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, run_shared, session);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], &done[i]);
  edgeq_session_close(session);
  printf("%ld of 200 calls of two threads done\n", (long)done[0] + (long)done[1]);
  return (long)done[0] + (long)done[1] > 0 ? 0 : 1;
}

static int child_of(edgeq_session *session) {
  pid_t child = fork();
  if (child == 0) {
    alarm(60); /* a child that hangs ends as a failure */
    edgeq_status first = edgeq_self_test(session, NULL, NULL), second = edgeq_self_test(session, NULL, NULL);
    if (first == EDGEQ_FAILED && strstr(edgeq_session_error(session), "was forked") != NULL) _exit(7);
    if (first == EDGEQ_OK) edgeq_session_close(session);
    _exit(first == EDGEQ_OK && second == EDGEQ_OK ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int use_fork(edgeq_model *model) {
  pthread_t thread;
  edgeq_session *session = open_session(model, 4);
  int wrong = edgeq_self_test(session, NULL, NULL) != EDGEQ_OK;
  /* A small model is done before its threads run at all, and a thread that begins allocates in the sanitizer's own code:
   * clang 14 forks without taking that lock, and nobody gives it back in the child. */
  nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
  for (int i = 0; i < 3; i++) wrong |= child_of(session) != 0;
  /* While another thread is inside a call, the child gets a sentence. */
  pthread_create(&thread, NULL, run_shared, session);
  for (int i = 0; i < 5; i++) {
    int code = child_of(session);
    wrong |= code != 0 && code != 7;
  }
  pthread_join(thread, NULL);
  wrong |= edgeq_self_test(session, NULL, NULL) != EDGEQ_OK;
  edgeq_session_close(session);
  printf("forks are %s\n", wrong ? "wrong" : "right");
  return wrong;
}

int main(int count, char **arguments) {
  edgeq_model *model = NULL;
  if (count != 3) return 2;
  if (strcmp(arguments[2], "memory") == 0) return refuse_memory(arguments[1]);
  if (strcmp(arguments[2], "steady") == 0) return take_no_memory(arguments[1]);
  if (edgeq_open(arguments[1], NULL, &model) != EDGEQ_OK) return 1;
  int code = strcmp(arguments[2], "fork") == 0 ? use_fork(model) : use_threads(model);
  edgeq_close(model);
  return code;
}
