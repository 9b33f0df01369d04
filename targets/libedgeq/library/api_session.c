/* The functions of edgeq.h for sessions: each runs what it does so that a failure anywhere below comes back as a status,
 * and refuses a second thread. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api.h"
#include "bundle.h"
#include "generator.h"
#include "options.h"

/* ---- calls ---- */

/* Bytes that earlier calls needed and the last one did not; what the last one needed is kept in any case. A call that does
 * the same as one before takes no memory. */
enum { MOST_SPARE = 1 << 18 };

/* After a fork the child has the memory of a session, but none of its threads. */
static edgeq_status enter(edgeq_session *session) {
  int idle = 0;
  long process = this_process();
  if (!atomic_compare_exchange_strong(&session->busy, &idle, 1)) {
    if (session->process == process) return EDGEQ_BUSY;
    snprintf(session->failure.sentence, SENTENCE_SIZE,
             "the process was forked while another thread used this session; open a new one in the child");
    return EDGEQ_FAILED;
  }
  if (session->process != process) pool_after_fork(session->pool);
  session->process = process;
  atomic_store(&session->cancelled, false);
  session->failure.sentence[0] = '\0';
  if (session->call.spare_bytes > MOST_SPARE) release_spare(&session->call);
  release_all(&session->call);
  return EDGEQ_OK;
}

edgeq_status run_call(edgeq_session *session, void (*body)(void *argument), void *argument) {
  if (session == NULL) return EDGEQ_USAGE;
  edgeq_status status = enter(session);
  if (status != EDGEQ_OK) return status;
  PoolThread before = pool_enter(session->pool);
  status = guarded(&session->failure, body, argument);
  pool_leave(before);
  atomic_store(&session->busy, 0);
  return status;
}

/* ---- opening and closing ---- */

typedef struct {
  edgeq_session *session;
  const edgeq_session_options *options;
} OpenCall;

static void open_body(void *argument) {
  OpenCall *call = argument;
  edgeq_session *session = call->session;
  size_t inputs = 0, caches = 0;
  if (session->model == NULL || session->model->functions[EDGEQ_MAIN].plan == NULL) {
    fail(&session->memory, EDGEQ_USAGE, "a session needs a model that is open");
  }
  if (call->options->threads < 0) {
    fail(&session->memory, EDGEQ_USAGE, "threads must be at least 1, or 0 for every core, found %d",
         (int)call->options->threads);
  }
  for (int i = 0; i < EDGEQ_FUNCTIONS; i++) {
    const Interface *interface = &session->model->functions[i].interface;
    inputs = interface->input_count > inputs ? interface->input_count : inputs;
    caches = interface->state_count > caches ? interface->state_count : caches;
  }
  session->inputs = allocate(&session->memory, inputs, sizeof *session->inputs);
  session->caches = allocate(&session->memory, caches, sizeof *session->caches);
  session->pool = pool_new(&session->memory, call->options);
}

edgeq_status edgeq_session_open(const edgeq_model *model, const edgeq_session_options *given, edgeq_session **session) {
  edgeq_session_options options = {0};
  take_options(&options, sizeof options, given);
  edgeq_allocator allocator = options.allocator != NULL ? *options.allocator
                              : model != NULL           ? model->memory.allocator
                                                        : DEFAULT_ALLOCATOR;
  edgeq_session *own = *session = allocator.allocate(allocator.context, sizeof *own);
  if (own == NULL) return EDGEQ_NO_MEMORY;
  own->model = model;
  atomic_init(&own->process, this_process());
  Memory empty = {.allocator = allocator, .failure = &own->failure};
  own->memory = own->call = own->cache = own->generation = empty;
  own->call.reuses = true;
  OpenCall call = {own, &options};
  edgeq_status status = guarded(&own->failure, open_body, &call);
  if (status != EDGEQ_OK) {
    release_all(&own->memory);
    own->pool = NULL;
    atomic_store(&own->busy, 1); /* a handle that only holds a sentence runs nothing */
  }
  return status;
}

void edgeq_session_close(edgeq_session *session) {
  if (session == NULL) return;
  edgeq_allocator allocator = session->memory.allocator;
  if (session->pool != NULL && session->process != this_process()) pool_after_fork(session->pool);
  release_all(&session->generation);
  release_all(&session->cache);
  release_all(&session->call);
  release_spare(&session->call);
  release_all(&session->memory);
  allocator.release(allocator.context, session);
}

const char *edgeq_session_error(const edgeq_session *session) {
  return session != NULL ? session->failure.sentence : "out of memory (a handle)";
}

void edgeq_cancel(edgeq_session *session) { atomic_store(&session->cancelled, true); }

/* ---- tensors ---- */

typedef struct {
  edgeq_session *session;
  int32_t function;
  const edgeq_tensor *inputs;
  edgeq_tensor *outputs;
  uint64_t *bytes;
} RunCall;

static void run_body(void *argument) {
  RunCall *call = argument;
  if (call->session->model->generation.context > 0) generator_end(call->session);
  run_function(call->session, call->function, call->inputs, call->outputs, "");
}

edgeq_status edgeq_run(edgeq_session *session, int32_t function, const edgeq_tensor *inputs, edgeq_tensor *outputs) {
  RunCall call = {session, function, inputs, outputs, NULL};
  return run_call(session, run_body, &call);
}

static void arena_body(void *argument) {
  RunCall *call = argument;
  *call->bytes = needed_bytes(call->session, call->function, call->inputs);
}

edgeq_status edgeq_arena_bytes(edgeq_session *session, int32_t function, const edgeq_tensor *inputs, uint64_t *bytes) {
  RunCall call = {session, function, inputs, NULL, bytes};
  return run_call(session, arena_body, &call);
}

typedef struct {
  edgeq_session *session;
  void *memory;
  size_t bytes;
} GiveCall;

static void give_body(void *argument) {
  GiveCall *call = argument;
  edgeq_session *session = call->session;
  if ((uintptr_t)call->memory % EDGEQ_ALIGNMENT != 0) {
    fail(&session->call, EDGEQ_USAGE, "the memory that is given must be aligned to %d bytes", EDGEQ_ALIGNMENT);
  }
  if (!session->arena_is_given) release(&session->memory, session->arena);
  session->arena = call->memory;
  session->arena_is_given = call->memory != NULL;
  session->arena_bytes = call->memory != NULL ? call->bytes : 0;
}

edgeq_status edgeq_give_arena(edgeq_session *session, void *memory, size_t bytes) {
  GiveCall call = {session, memory, bytes};
  return run_call(session, give_body, &call);
}

typedef struct {
  edgeq_session *session;
  int64_t batch;
  size_t index;
  edgeq_tensor *tensor;
} StateCall;

static void reset_body(void *argument) {
  StateCall *call = argument;
  if (call->session->model->functions[EDGEQ_MAIN].interface.state_count == 0) {
    fail(&call->session->call, EDGEQ_USAGE, "the model keeps no caches: it is for '%s'", call->session->model->info.task);
  }
  generator_end(call->session);
  reset_state(call->session, call->batch);
}

edgeq_status edgeq_reset(edgeq_session *session, int64_t batch) {
  StateCall call = {session, batch, 0, NULL};
  return run_call(session, reset_body, &call);
}

static void state_body(void *argument) {
  StateCall *call = argument;
  edgeq_session *session = call->session;
  if (session->state == NULL || call->index >= session->model->functions[EDGEQ_MAIN].interface.state_count) {
    fail(&session->call, EDGEQ_USAGE, "there is no cache %zu; call edgeq_reset first", call->index);
  }
  *call->tensor = session->state->tensors[call->index];
}

edgeq_status edgeq_state(edgeq_session *session, size_t index, edgeq_tensor *tensor) {
  StateCall call = {session, 0, index, tensor};
  return run_call(session, state_body, &call);
}

typedef struct {
  edgeq_session *session;
  uint64_t values, differing;
} TestCall;

static void count_differing(TestCall *call, const Spec *specs, const GoldenRun *golden, const edgeq_tensor *found,
                            size_t count) {
  for (size_t i = 0; i < count; i++) {
    const edgeq_tensor *wanted = &golden->outputs[i];
    size_t size = element_bytes(wanted->type);
    if (memcmp(found[i].shape, wanted->shape, sizeof wanted->shape) != 0) {
      fail(&call->session->call, EDGEQ_FAILED, "self-test failed: output '%s' has another shape than the golden one",
           specs[i].name);
    }
    for (size_t at = 0; at < wanted->bytes; at += size) {
      call->values++;
      call->differing += memcmp((const char *)found[i].data + at, (const char *)wanted->data + at, size) != 0;
    }
  }
}

static void test_body(void *argument) {
  TestCall *call = argument;
  edgeq_session *session = call->session;
  const edgeq_model *model = session->model;
  generator_end(session);
  if (model->golden_count == 0) fail(&session->call, EDGEQ_FAILED, "the bundle has no golden runs; compile it again");
  for (size_t i = 0; i < model->golden_count; i++) {
    const GoldenRun *golden = &model->golden[i];
    const Interface *interface = &model->functions[golden->function].interface;
    if (!golden_is_good(model, golden)) fail_damaged(&session->call, &model->golden_file);
    edgeq_tensor *outputs = allocate(&session->call, interface->output_count, sizeof *outputs);
    run_function(session, golden->function, golden->inputs, outputs, "golden.bin: ");
    count_differing(call, interface->outputs, golden, outputs, interface->output_count);
  }
  if (call->differing > 0) {
    fail(&session->call, EDGEQ_FAILED, "self-test failed: %llu of %llu output values differ from the golden ones",
         (unsigned long long)call->differing, (unsigned long long)call->values);
  }
}

edgeq_status edgeq_self_test(edgeq_session *session, uint64_t *values, uint64_t *differing) {
  TestCall call = {session, 0, 0};
  edgeq_status status = run_call(session, test_body, &call);
  if (values != NULL) *values = call.values;
  if (differing != NULL) *differing = call.differing;
  return status;
}

typedef struct {
  edgeq_session *session;
  void (*watch)(void *context, const edgeq_kernel_time *kernel);
  void *context;
} WatchCall;

static void watch_body(void *argument) {
  WatchCall *call = argument;
  call->session->watch = call->watch;
  call->session->watch_context = call->context;
}

edgeq_status edgeq_watch_kernels(edgeq_session *session, void (*watch)(void *context, const edgeq_kernel_time *kernel),
                                 void *context) {
  WatchCall call = {session, watch, context};
  return run_call(session, watch_body, &call);
}

/* ---- generated texts ---- */

void edgeq_generation_defaults(edgeq_generation *generation) {
  *generation = (edgeq_generation){.size = sizeof *generation,
                                   .temperature = NAN,
                                   .top_p = NAN,
                                   .repetition_penalty = NAN,
                                   .length_penalty = NAN,
                                   .top_k = -1,
                                   .seed = -1,
                                   .beams = -1,
                                   .no_repeat_ngram_size = -1,
                                   .min_new_tokens = -1,
                                   .max_new_tokens = -1,
                                   .early_stopping = -1,
                                   .batch = 1};
}

typedef struct {
  edgeq_session *session;
  const edgeq_text *texts;
  size_t count;
  edgeq_generation options;
  int32_t (*on_piece)(void *context, const edgeq_piece *piece);
  void *context;
} GenerateCall;

static void start_body(void *argument) {
  GenerateCall *call = argument;
  generator_start(call->session, call->texts, call->count, &call->options);
}

static GenerateCall generate_call(edgeq_session *session, const edgeq_text *texts, size_t count,
                                  const edgeq_generation *options) {
  GenerateCall call = {.session = session, .texts = texts, .count = count};
  edgeq_generation_defaults(&call.options);
  take_options(&call.options, sizeof call.options, options);
  return call;
}

edgeq_status edgeq_generate_start(edgeq_session *session, const edgeq_text *texts, size_t count,
                                  const edgeq_generation *options) {
  GenerateCall call = generate_call(session, texts, count, options);
  return run_call(session, start_body, &call);
}

typedef struct {
  edgeq_session *session;
  const edgeq_text *text;
  edgeq_generation options;
  int64_t batch;
  size_t index;
} AddCall;

static void open_texts_body(void *argument) {
  AddCall *call = argument;
  generator_open(call->session, call->batch);
}

edgeq_status edgeq_generate_open(edgeq_session *session, int64_t batch) {
  AddCall call = {.session = session, .batch = batch};
  return run_call(session, open_texts_body, &call);
}

static void add_body(void *argument) {
  AddCall *call = argument;
  call->index = generator_add(call->session, call->text, &call->options);
}

edgeq_status edgeq_generate_add(edgeq_session *session, const edgeq_text *text, const edgeq_generation *options,
                                size_t *index) {
  AddCall call = {.session = session, .text = text};
  edgeq_generation_defaults(&call.options);
  take_options(&call.options, sizeof call.options, options);
  edgeq_status status = run_call(session, add_body, &call);
  if (status == EDGEQ_OK) *index = call.index;
  return status;
}

static void drop_body(void *argument) {
  AddCall *call = argument;
  generator_drop(call->session, call->index);
}

edgeq_status edgeq_generate_drop(edgeq_session *session, size_t index) {
  AddCall call = {.session = session, .index = index};
  return run_call(session, drop_body, &call);
}

typedef struct {
  edgeq_session *session;
  edgeq_piece *piece;
  bool made;
} NextCall;

static void next_body(void *argument) {
  NextCall *call = argument;
  call->made = generator_next(call->session, call->piece);
}

edgeq_status edgeq_generate_next(edgeq_session *session, edgeq_piece *piece) {
  NextCall call = {session, piece, false};
  edgeq_status status = run_call(session, next_body, &call);
  return status == EDGEQ_OK && !call.made ? EDGEQ_END : status;
}

typedef struct {
  edgeq_session *session;
  size_t index;
  edgeq_generated *generated;
} ResultCall;

static void result_body(void *argument) {
  ResultCall *call = argument;
  generator_result(call->session, call->index, call->generated);
}

edgeq_status edgeq_generate_result(edgeq_session *session, size_t index, edgeq_generated *generated) {
  ResultCall call = {session, index, generated};
  return run_call(session, result_body, &call);
}

static void generate_body(void *argument) {
  GenerateCall *call = argument;
  edgeq_piece piece;
  generator_start(call->session, call->texts, call->count, &call->options);
  while (generator_next(call->session, &piece)) {
    if (call->on_piece != NULL && call->on_piece(call->context, &piece) != 0) edgeq_cancel(call->session);
    check_cancelled(call->session);
  }
}

edgeq_status edgeq_generate(edgeq_session *session, const edgeq_text *texts, size_t count,
                            const edgeq_generation *options,
                            int32_t (*on_piece)(void *context, const edgeq_piece *piece), void *context) {
  GenerateCall call = generate_call(session, texts, count, options);
  call.on_piece = on_piece;
  call.context = context;
  return run_call(session, generate_body, &call);
}
