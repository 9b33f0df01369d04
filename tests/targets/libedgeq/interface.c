/* What edgeq.h says of a caller's own threads, processors, memory and of ending a call, one thing at a time, as the second
 * argument says. What is wrong is printed, and the exit code is 1. */
#include <dirent.h>
#include <edgeq.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPECT(fits, ...) \
  do { \
    if (!(fits)) { \
      printf("line %d: ", __LINE__); \
      printf(__VA_ARGS__); \
      puts(""); \
      exit(1); \
    } \
  } while (0)

static const int64_t IDS[] = {5, 6, 7, 8};
static const edgeq_text TEXT = {.ids = IDS, .id_count = 4};

static edgeq_model *open_model(const char *bundle) {
  edgeq_model *model = NULL;
  EXPECT(edgeq_open(bundle, NULL, &model) == EDGEQ_OK, "%s", edgeq_error(model));
  return model;
}

static edgeq_session *open_session(const edgeq_model *model, edgeq_session_options how) {
  edgeq_session *session = NULL;
  how.size = sizeof how;
  EXPECT(edgeq_session_open(model, &how, &session) == EDGEQ_OK, "%s", edgeq_session_error(session));
  return session;
}

static void self_test(edgeq_session *session) {
  EXPECT(edgeq_self_test(session, NULL, NULL) == EDGEQ_OK, "%s", edgeq_session_error(session));
}

static edgeq_generation endless(void) {
  edgeq_generation how;
  edgeq_generation_defaults(&how);
  how.max_new_tokens = 1 << 20;
  how.ignore_end = 1;
  return how;
}

/* ---- the caller's threads ---- */

typedef struct {
  void (*piece)(void *work, int32_t number);
  void *work;
  int32_t pieces;
  atomic_int next;
} Round;

static atomic_int rounds;

static void *take_pieces(void *argument) {
  Round *round = argument;
  for (int number; (number = atomic_fetch_add(&round->next, 1)) < round->pieces;) {
    round->piece(round->work, round->pieces - 1 - number); /* the last first */
  }
  return NULL;
}

static void run_in_parallel(void *context, int32_t pieces, void (*piece)(void *work, int32_t number), void *work) {
  pthread_t threads[3];
  Round round = {piece, work, pieces, 0};
  EXPECT(context == &rounds, "another context");
  atomic_fetch_add(&rounds, 1);
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, take_pieces, &round);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
}

static int thread_count(void) {
  int count = 0;
  DIR *folder = opendir("/proc/self/task");
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) count += entry->d_name[0] != '.';
  closedir(folder);
  return count;
}

static void use_own_threads(const char *bundle) {
  edgeq_model *model = open_model(bundle);
  const edgeq_session_options how = {.threads = 3, .parallel_for = run_in_parallel, .parallel_context = &rounds};
  edgeq_session *session = open_session(model, how);
  int before = thread_count();
  self_test(session);
  EXPECT(rounds > 0, "the caller's threads had nothing to do");
  EXPECT(thread_count() == before, "the library started threads of its own");
  edgeq_session_close(session);
  edgeq_close(model);
}

/* ---- processors ---- */

/* How many threads but this one may run on processor 0 only. */
static int bound_threads(void) {
  int count = 0;
  DIR *folder = opendir("/proc/self/task");
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    char path[300], line[300];
    snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
    FILE *file = entry->d_name[0] == '.' || atoi(entry->d_name) == getpid() ? NULL : fopen(path, "r");
    if (file == NULL) continue;
    while (fgets(line, sizeof line, file) != NULL) count += strcmp(line, "Cpus_allowed_list:\t0\n") == 0;
    fclose(file);
  }
  closedir(folder);
  return count;
}

static void use_processors(const char *bundle) {
  edgeq_model *model = open_model(bundle);
  const int32_t first = 0;
  edgeq_session *session = open_session(model, (edgeq_session_options){.threads = 3, .processors = &first, .processor_count = 1});
  self_test(session);
  EXPECT(bound_threads() == 2, "%d of 2 threads are bound", bound_threads());
  edgeq_session_close(session);
  edgeq_close(model);
}

/* ---- ending a call ---- */

static int32_t stop_at_third(void *context, const edgeq_piece *piece) {
  (void)piece;
  return ++*(int *)context == 3;
}

static atomic_bool is_over;

/* A call that has not begun, or is done, is not ended: so it is asked for again and again. */
static void *cancel_until_over(void *session) {
  while (!is_over) {
    usleep(500);
    edgeq_cancel(session);
  }
  return NULL;
}

static void end_calls(const char *bundle) {
  edgeq_model *model = open_model(bundle);
  edgeq_session *session = open_session(model, (edgeq_session_options){.threads = 2});
  edgeq_generation how = endless();
  edgeq_generated made;
  int count = 0;
  EXPECT(edgeq_generate(session, &TEXT, 1, &how, stop_at_third, &count) == EDGEQ_CANCELLED, "the callback did not end it");
  EXPECT(edgeq_generate_result(session, 0, &made) == EDGEQ_OK && made.id_count == 3, "%zu tokens", made.id_count);
  /* From another thread, at any moment: calls follow each other until one is hit. */
  for (int i = 0; i < 3; i++) {
    pthread_t thread;
    edgeq_status status = EDGEQ_OK;
    is_over = false;
    pthread_create(&thread, NULL, cancel_until_over, session);
    while (status == EDGEQ_OK) status = edgeq_self_test(session, NULL, NULL);
    EXPECT(status == EDGEQ_CANCELLED, "%s", edgeq_session_error(session));
    is_over = true;
    pthread_join(thread, NULL);
  }
  self_test(session); /* and the next call is as if nothing had been */
  edgeq_session_close(session);
  edgeq_close(model);
}

/* ---- memory ---- */

static void give_arena(const char *bundle) {
  edgeq_model *model = open_model(bundle);
  edgeq_session *session = open_session(model, (edgeq_session_options){.threads = 2});
  size_t inputs = edgeq_input_count(model, EDGEQ_MAIN), outputs = edgeq_output_count(model, EDGEQ_MAIN);
  int32_t function = 0;
  edgeq_tensor given[16], golden[16], found[16];
  uint64_t bytes = 0;
  EXPECT(inputs <= 16 && outputs <= 16, "too many tensors for this test");
  EXPECT(edgeq_golden(model, 0, &function, given, golden) == EDGEQ_OK, "no golden run");
  EXPECT(edgeq_arena_bytes(session, function, given, &bytes) == EDGEQ_OK, "%s", edgeq_session_error(session));
  char *memory = aligned_alloc(EDGEQ_ALIGNMENT, (bytes + EDGEQ_ALIGNMENT - 1) / EDGEQ_ALIGNMENT * EDGEQ_ALIGNMENT);
  EXPECT(edgeq_give_arena(session, memory + 1, bytes) == EDGEQ_USAGE, "memory at an odd address was taken");
  EXPECT(edgeq_give_arena(session, memory, bytes - 1) == EDGEQ_OK, "%s", edgeq_session_error(session));
  EXPECT(edgeq_run(session, function, given, found) == EDGEQ_USAGE, "it ran in too little memory");
  EXPECT(strstr(edgeq_session_error(session), "bytes of memory") != NULL, "%s", edgeq_session_error(session));
  EXPECT(edgeq_give_arena(session, memory, bytes) == EDGEQ_OK, "%s", edgeq_session_error(session));
  EXPECT(edgeq_run(session, function, given, found) == EDGEQ_OK, "%s", edgeq_session_error(session));
  for (size_t i = 0; i < outputs; i++) {
    const char *data = found[i].data;
    EXPECT(data >= memory && data + found[i].bytes <= memory + bytes, "output %zu lies elsewhere", i);
    EXPECT(memcmp(data, golden[i].data, golden[i].bytes) == 0, "output %zu is another", i);
  }
  EXPECT(edgeq_give_arena(session, NULL, 0) == EDGEQ_OK, "%s", edgeq_session_error(session));
  free(memory);
  self_test(session);
  edgeq_session_close(session);
  edgeq_close(model);
}

static void open_from_memory(const char *packed) {
  edgeq_model *model = NULL;
  FILE *file = fopen(packed, "rb");
  EXPECT(file != NULL, "no file");
  fseek(file, 0, SEEK_END);
  size_t size = (size_t)ftell(file);
  char *data = aligned_alloc(4096, (size + 2 * 4096) / 4096 * 4096);
  rewind(file);
  EXPECT(fread(data, 1, size, file) == size, "not read");
  fclose(file);
  EXPECT(edgeq_open_memory(data, size, NULL, &model) == EDGEQ_OK, "%s", edgeq_error(model));
  edgeq_session *session = open_session(model, (edgeq_session_options){.threads = 1});
  self_test(session);
  edgeq_session_close(session);
  edgeq_close(model);
  EXPECT(edgeq_open_memory(data, size - 1, NULL, &model) == EDGEQ_DAMAGED, "a cut one was opened");
  edgeq_close(model);
  memmove(data + 8, data, size);
  EXPECT(edgeq_open_memory(data + 8, size, NULL, &model) == EDGEQ_USAGE, "memory at an odd address was taken");
  edgeq_close(model);
  free(data);
}

int main(int count, char **arguments) {
  const struct {
    const char *name;
    void (*test)(const char *bundle);
  } tests[] = {{"threads", use_own_threads}, {"processors", use_processors}, {"end", end_calls},
               {"arena", give_arena},        {"memory", open_from_memory}};
  for (size_t i = 0; count == 3 && i < sizeof tests / sizeof *tests; i++) {
    if (strcmp(arguments[2], tests[i].name) != 0) continue;
    tests[i].test(arguments[1]);
    puts("right");
    return 0;
  }
  return 2;
}
