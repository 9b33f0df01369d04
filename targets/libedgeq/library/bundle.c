#include "bundle.h"

#include <stdio.h>
#include <string.h>

#include "bundle_files.h"
#include "cpu.h"
#include "generation_table.h"
#include "pool.h"
#include "tokenizer_file.h"
#include "vectors.h"

enum { FORMAT_VERSION = 2, MOST_LABELS = 1 << 20 };

/* What is known while a bundle is read. */
typedef struct {
  edgeq_model *model;
  Memory *memory, *scratch;
  Json json;
  const edgeq_open_options *options;
  const char *code; /* name of the file with the code for this processor */
  Elf *elf;
} Reader;

/* ---- target ---- */

static const char *missing_flag(const Json *json, const JsonValue *target) {
  const JsonValue *flags = json_member(json, target, "cpu_flags", JSON_ARRAY);
  for (const JsonValue *flag = json_first(flags); flag != NULL; flag = flag->next) {
    json_check(json, flag->kind == JSON_TEXT, "'cpu_flags' must be texts");
    if (!cpu_has(flag->text)) return flag->text;
  }
  return NULL;
}

/* The first target of the list, which is the best, whose instructions this processor has. */
static void choose_target(Reader *reader) {
  const Json *json = &reader->json;
  const char *wanted = reader->options->variant, *missing = NULL, *name = NULL;
  const JsonValue *list = json_member(json, json->root, "targets", JSON_ARRAY);
  json_check(json, list->count > 0, "'targets' is empty");
  for (const JsonValue *target = json_first(list); target != NULL; target = target->next) {
    name = json_text(json, target, "name");
    if (wanted != NULL && strcmp(wanted, name) != 0) continue;
    missing = missing_flag(json, target);
    if (missing != NULL) continue;
    reader->code = json_text(json, target, "code");
    reader->model->info.variant = copy_text(reader->memory, name);
    return;
  }
  if (missing != NULL) {
    fail(reader->scratch, EDGEQ_UNSUPPORTED,
         "the bundle is for %s, and this processor lacks its %s; compile it for another target",
         wanted != NULL ? wanted : name, missing);
  }
  fail(reader->scratch, EDGEQ_USAGE, "the bundle has no code for '%s'", wanted);
}

/* ---- model ---- */

static const char *one_of(const Json *json, const JsonValue *table, const char *key, const char *const *known) {
  const char *value = json_text(json, table, key);
  for (; *known != NULL; known++) {
    if (strcmp(*known, value) == 0) return *known;
  }
  fail(json->memory, EDGEQ_UNSUPPORTED, "%s: '%s' is '%s', which this libedgeq does not know; use a newer one",
       json->file, key, value);
}

static void read_model(Reader *reader) {
  static const char *const tasks[] = {"embed", "classify", "tag", "answer", "fill", "generate", "seq2seq", NULL};
  static const char *const poolings[] = {"mean", "cls", "max", "none", NULL};
  const Json *json = &reader->json;
  edgeq_info *info = &reader->model->info;
  const JsonValue *table = json_member(json, json->root, "model", JSON_OBJECT);
  info->task = one_of(json, table, "task", tasks);
  info->pooling = one_of(json, table, "pooling", poolings);
  info->normalize = json_member(json, table, "normalize", JSON_BOOL)->boolean;
  info->architecture = copy_text(reader->memory, json_text(json, table, "architecture"));
  const JsonValue *longest = json_find(table, "max_length");
  if (longest == NULL || longest->kind != JSON_NULL) {
    info->longest = json_integer(json, table, "max_length", 1, LARGEST_SIZE);
  }
  const JsonValue *labels = json_member(json, table, "labels", JSON_ARRAY);
  json_check(json, labels->count <= MOST_LABELS, "there are too many 'labels'");
  const char **names = allocate(reader->memory, labels->count, sizeof *names);
  for (const JsonValue *label = json_first(labels); label != NULL; label = label->next) {
    json_check(json, label->kind == JSON_TEXT, "'labels' must be texts");
    names[info->label_count++] = copy_text(reader->memory, label->text);
  }
  info->labels = names;
}

/* Reads the beginnings that texts may get, and the one that they get if no other is asked for. */
static void read_prompts(Reader *reader, const JsonValue *table, TextRules *rules) {
  const Json *json = &reader->json;
  const JsonValue *prompts = json_member(json, table, "prompts", JSON_OBJECT);
  const JsonValue *name = json_find(table, "default_prompt");
  json_check(json, name != NULL && (name->kind == JSON_NULL || name->kind == JSON_TEXT),
             "'default_prompt' must be a text or null");
  Prompt *list = allocate(reader->memory, prompts->count, sizeof *list);
  for (const JsonValue *prompt = json_first(prompts); prompt != NULL; prompt = prompt->next) {
    const char *text = json_text(json, prompts, prompt->key);
    list[rules->prompt_count++] = (Prompt){copy_text(reader->memory, prompt->key), copy_text(reader->memory, text)};
  }
  rules->prompts = list;
  if (name->kind != JSON_NULL) rules->prompt = copy_text(reader->memory, json_text(json, prompts, name->text));
}

static void read_text_rules(Reader *reader) {
  static const char *const scores[] = {"none", "sigmoid", "softmax", NULL}, *const sides[] = {"left", "right", NULL};
  const Json *json = &reader->json;
  TextRules *rules = &reader->model->texts;
  *rules = (TextRules){.prompt = "", .scores = SCORES_SOFTMAX};
  if (json_find(json->root, "text") == NULL) return; /* of bundles that were made before there were rules */
  const JsonValue *table = json_member(json, json->root, "text", JSON_OBJECT);
  read_prompts(reader, table, rules);
  const JsonValue *longest = json_find(table, "max_tokens");
  if (longest == NULL || longest->kind != JSON_NULL) {
    rules->longest = json_integer(json, table, "max_tokens", 1, LARGEST_SIZE);
  }
  rules->cuts = json_member(json, table, "cuts", JSON_BOOL)->boolean;
  rules->cuts_left = strcmp(one_of(json, table, "cut_side", sides), "left") == 0;
  const char *made = one_of(json, table, "scores", scores);
  rules->scores = strcmp(made, "none") == 0      ? SCORES_AS_THEY_ARE
                  : strcmp(made, "sigmoid") == 0 ? SCORES_SIGMOID
                                                 : SCORES_SOFTMAX;
}

static void read_weights(Reader *reader, CheckedFile file) {
  edgeq_model *model = reader->model;
  model->weights_file = file;
  model->weights = read_stored(reader->memory, &reader->json, reader->json.root, "weights", file.data, NULL,
                               &model->weight_count);
  model->weight_tensors = allocate(reader->memory, model->weight_count, sizeof *model->weight_tensors);
  for (size_t i = 0; i < model->weight_count; i++) {
    edgeq_tensor *weight = &model->weights[i];
    model->weight_tensors[i] = kernel_tensor(weight->type, weight->rank, weight->shape, weight->data);
  }
}

/* ---- functions ---- */

/* A kernel of the program's own, for a level of processors or (NULL) for all. */
static void *linked_kernel(const edgeq_open_options *options, const char *variant, const char *name) {
  size_t skip = variant != NULL ? strlen(variant) : 0;
  for (size_t i = 0; i < options->kernel_count; i++) {
    const char *known = options->kernels[i].name;
    if (variant != NULL) {
      if (strncmp(known, variant, skip) != 0 || known[skip] != '/') continue;
      known += skip + 1;
    }
    if (strcmp(known, name) == 0) return options->kernels[i].address;
  }
  return NULL;
}

static void *kernel_address(const Reader *reader, const char *name) {
  const edgeq_open_options *options = reader->options;
  if (reader->elf != NULL) { /* the compiler puts this before the name of each */
    char symbol[512];
    int length = snprintf(symbol, sizeof symbol, "__tvm_ffi_%s", name);
    return length < (int)sizeof symbol ? elf_find(reader->elf, symbol) : NULL;
  }
  void *address = linked_kernel(options, reader->model->info.variant, name);
  return address != NULL ? address : linked_kernel(options, NULL, name);
}

static void find_kernels(Reader *reader, Function *function) {
  const Plan *plan = function->plan;
  function->kernels = allocate(reader->memory, plan->kernel_count, sizeof *function->kernels);
  for (size_t i = 0; i < plan->kernel_count; i++) {
    void *address = kernel_address(reader, plan->kernels[i]);
    json_check(&reader->json, address != NULL, "%s has no kernel '%s'", reader->code, plan->kernels[i]);
    /* ISO C has no cast from void * to a function pointer; POSIX says that they are the same size. */
    memcpy(&function->kernels[i], &address, sizeof address);
  }
}

/* One plan for all codes, or one for each. */
static const JsonValue *plan_of(const Reader *reader, const JsonValue *table) {
  const JsonValue *plans = json_find(table, "plans");
  if (plans == NULL) return json_member(&reader->json, table, "plan", JSON_OBJECT);
  return json_member(&reader->json, plans, reader->code, JSON_OBJECT);
}

static void read_function(Reader *reader, int32_t number, const char *name) {
  const Json *json = &reader->json;
  Function *function = &reader->model->functions[number];
  Interface *interface = &function->interface;
  const JsonValue *functions = json_member(json, json->root, "functions", JSON_OBJECT);
  if (number != EDGEQ_MAIN && json_find(functions, name) == NULL) return;
  const JsonValue *table = json_member(json, functions, name, JSON_OBJECT);
  function->name = name;
  interface->inputs = read_specs(reader->memory, json, table, "inputs", &interface->input_count);
  interface->outputs = read_specs(reader->memory, json, table, "outputs", &interface->output_count);
  interface->state = read_specs(reader->memory, json, table, "state", &interface->state_count);
  interface->weight_count = reader->model->weight_count;
  json_check(json, interface->input_count > 0, "'%s' has no inputs", name);
  function->plan = read_plan(reader->memory, json, plan_of(reader, table), interface);
  function->is_checked = allocate(reader->memory, function->plan->step_count, sizeof *function->is_checked);
  find_kernels(reader, function);
}

static bool same_spec(const Spec *a, const Spec *b) {
  bool same = strcmp(a->name, b->name) == 0 && a->type == b->type && a->rank == b->rank;
  for (int at = 0; same && at < a->rank; at++) {
    same = a->shape[at] == b->shape[at] &&
           (a->dimensions[at] == NULL || strcmp(a->dimensions[at], b->dimensions[at]) == 0);
  }
  return same;
}

/* All caches are those of `main`; `encode` names the ones that it fills. */
static void match_state(Reader *reader, Function *function) {
  const Interface *main = &reader->model->functions[EDGEQ_MAIN].interface, *own = &function->interface;
  function->state_at = allocate(reader->memory, own->state_count, sizeof *function->state_at);
  for (size_t i = 0; i < own->state_count; i++) {
    size_t at = 0;
    while (at < main->state_count && !same_spec(&main->state[at], &own->state[i])) at++;
    json_check(&reader->json, at < main->state_count, "'main' has no cache like '%s'", own->state[i].name);
    function->state_at[i] = at;
  }
}

/* Kernels that are linked in must be those that the plan was made for. */
static void check_linked_kernels(const Reader *reader) {
  const Json *json = &reader->json;
  const edgeq_open_options *options = reader->options;
  if (json_find(json->root, "linked_kernels") == NULL) return;
  const char *fingerprint = json_text(json, json->root, "linked_kernels");
  if (options->kernels == NULL) {
    fail(reader->scratch, EDGEQ_USAGE,
         "%s has no code: its kernels are linked into the program that was built with it; give them to edgeq_open",
         json->file);
  }
  for (size_t i = 0; i < options->kernel_count; i++) {
    static const char mark[] = "fingerprint/";
    const char *name = options->kernels[i].name;
    if (strncmp(name, mark, sizeof mark - 1) == 0 && strcmp(name + sizeof mark - 1, fingerprint) == 0) return;
  }
  fail(reader->scratch, EDGEQ_USAGE,
       "%s belongs to other kernels than those of this program; build the program with the model's own folder",
       json->file);
}

static void load_code(Reader *reader, const BundleFiles *files) {
  const Symbol given[] = {{"memcpy", (void *)(uintptr_t)memcpy},
                          {"memset", (void *)(uintptr_t)memset},
                          {"TVMFFIErrorSetRaisedFromCStrParts", (void *)(uintptr_t)pool_note_error},
                          {"__TVMBackendParallelLaunch", (void *)(uintptr_t)pool_launch},
                          {"__TVMBackendAllocWorkspace", (void *)(uintptr_t)pool_allocate},
                          {"__TVMBackendFreeWorkspace", (void *)(uintptr_t)pool_release}};
  const edgeq_open_options *options = reader->options;
  size_t count = sizeof given / sizeof *given;
  if (options->kernels == NULL) {
    reader->elf = files->code;
    elf_load(reader->memory, reader->elf, reader->code, given, count);
    reader->model->code = elf_start(reader->elf);
    return;
  }
  for (size_t i = 0; i < options->kernel_count; i++) {
    for (size_t k = 0; k < count; k++) {
      if (strcmp(options->kernels[i].name, given[k].name) != 0) continue;
      memcpy(options->kernels[i].address, &given[k].address, sizeof(void *));
    }
  }
}

/* ---- golden runs, tokenizer ---- */

static void read_golden(Reader *reader, CheckedFile golden) {
  edgeq_model *model = reader->model;
  const Mapping file = golden.data;
  const Json *json = &reader->json;
  const JsonValue *list = json_member(json, json->root, "golden", JSON_ARRAY);
  model->golden_file = golden;
  model->golden = allocate(reader->memory, list->count, sizeof *model->golden);
  for (const JsonValue *item = json_first(list); item != NULL; item = item->next) {
    GoldenRun *run = &model->golden[model->golden_count];
    const char *name = json_text(json, item, "function");
    while (run->function < EDGEQ_FUNCTIONS) {
      const char *known = model->functions[run->function].name;
      if (known != NULL && strcmp(known, name) == 0) break;
      run->function++;
    }
    json_check(json, run->function < EDGEQ_FUNCTIONS, "a golden run is of '%s', which is not there", name);
    const Interface *interface = &model->functions[run->function].interface;
    size_t inputs = interface->input_count, outputs = interface->output_count;
    run->inputs = read_stored(reader->memory, json, item, "inputs", file, interface->inputs, &inputs);
    run->outputs = read_stored(reader->memory, json, item, "outputs", file, interface->outputs, &outputs);
    model->golden_count++;
  }
}

static void read_tokenizer(Reader *reader, const Source *source, Mapping file) {
  edgeq_model *model = reader->model;
  if (file.size == 0) {
    model->no_tokenizer = "the bundle carries no tokenizer.bin";
    return;
  }
  char *path = path_in(reader->scratch, source, "tokenizer.bin");
  model->tokenizer = read_tokenizer_table(reader->memory, file, path, &model->no_tokenizer);
}

/* The last size of an output, if every call gives the same one: the manifest may only have a name for it. */
static int64_t fixed_width(const Plan *plan, const Spec *output, size_t index) {
  int64_t width = output->shape[output->rank - 1];
  Argument argument = plan->outputs[index];
  if (width > 0 || argument.origin != OF_TENSOR) return width > 0 ? width : 0;
  const PlanTensor *tensor = &plan->tensors[argument.index];
  if (tensor->rank != output->rank) return 0;
  Expression last = tensor->shape[tensor->rank - 1];
  const Term *term = &plan->terms[last.first];
  return last.count == 1 && term->operation == CONSTANT && term->value > 0 ? term->value : 0;
}

static void finish_info(edgeq_model *model) {
  edgeq_info *info = &model->info;
  const Interface *main = &model->functions[EDGEQ_MAIN].interface;
  info->has_tokenizer = model->no_tokenizer == NULL;
  info->context = model->generation.context;
  info->source_context = model->generation.source_context;
  info->vocabulary = model->generation.vocabulary;
  size_t shown = vectors_output(main);
  if (shown < main->output_count && info->context == 0) {
    info->width = fixed_width(model->functions[EDGEQ_MAIN].plan, &main->outputs[shown], shown);
  }
}

static bool all_good(const CheckedFile *file, const edgeq_tensor *tensors, size_t count) {
  bool good = true;
  for (size_t i = 0; i < count; i++) good = good && bytes_are_good(file, tensors[i].data, tensors[i].bytes);
  return good;
}

bool golden_is_good(const edgeq_model *model, const GoldenRun *run) {
  const Interface *interface = &model->functions[run->function].interface;
  return all_good(&model->golden_file, run->inputs, interface->input_count) &&
         all_good(&model->golden_file, run->outputs, interface->output_count);
}

static void check_format(const Json *json) {
  const JsonValue *root = json->root;
  const char *format = json_text(json, root, "format");
  if (strcmp(format, "edgeq-bundle") != 0) {
    fail(json->memory, EDGEQ_DAMAGED, "%s is not the manifest of a bundle: its format is '%s'", json->file, format);
  }
  bool is_first = json_find(root, "version") == NULL && json_find(root, "format_version") != NULL;
  int64_t version = is_first ? 1 : json_integer(json, root, "version", 0, LARGEST_VALUE);
  if (version != FORMAT_VERSION) {
    fail(json->memory, EDGEQ_UNSUPPORTED, "%s is of format version %lld, expected %d; compile the bundle again",
         json->file, (long long)version, FORMAT_VERSION);
  }
}

void read_bundle(edgeq_model *model, Memory *scratch, const Source *source, const edgeq_open_options *options) {
  Reader reader = {.model = model, .memory = &model->memory, .scratch = scratch, .options = options};
  model->manifest = map_manifest(&model->memory, scratch, source);
  char *file = path_in(scratch, source, "manifest.json");
  reader.json = json_parse(scratch, model->manifest->data, model->manifest->size, file);
  check_format(&reader.json);
  check_linked_kernels(&reader);
  choose_target(&reader);
  BundleFiles files = read_files(&model->memory, scratch, source, &reader.json, reader.code, options);
  read_model(&reader);
  read_text_rules(&reader);
  read_weights(&reader, files.weights);
  load_code(&reader, &files);
  read_function(&reader, EDGEQ_MAIN, "main");
  read_function(&reader, EDGEQ_ENCODE, "encode");
  model->functions[EDGEQ_MAIN].longest = model->info.longest;
  for (int32_t i = 0; i < EDGEQ_FUNCTIONS; i++) match_state(&reader, &model->functions[i]);
  read_generation(model, &reader.json);
  read_golden(&reader, files.golden);
  read_tokenizer(&reader, source, files.tokenizer.data);
  finish_info(model);
}
