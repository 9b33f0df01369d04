#include "plan.h"

#include <string.h>

#include "buffer.h"

/* A plan while it is read: lists that grow. */
typedef struct {
  Memory *memory;
  const Json *json;
  const Interface *interface;
  Plan *plan;
  Buffer dimensions, terms, integers, arguments, kernels;
} Reader;

static size_t items(const Buffer *buffer, size_t size) { return buffer->size / size; }

static void check(const Reader *reader, bool fits, const char *what) {
  json_check(reader->json, fits, "the plan %s", what);
}

/* ---- expressions ---- */

/* A non-negative number of decimal digits up to `end`. */
static bool read_digits(const char *text, const char *end, int64_t *value) {
  *value = 0;
  for (const char *at = text; at < end; at++) {
    if (*at < '0' || *at > '9') return false;
    if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, *at - '0', value)) return false;
  }
  return text < end;
}

static bool is_word(const char *text, const char *end, const char *word) {
  return *word == *text && strlen(word) == (size_t)(end - text) && memcmp(text, word, (size_t)(end - text)) == 0;
}

static Term read_term(const Reader *reader, const char *text, const char *end) {
  static const char *const words[] = {[ADD] = "+",       [SUBTRACT] = "-",    [MULTIPLY] = "*",  [DIVIDE] = "/",
                                      [REMAINDER] = "%", [MINIMUM] = "min", [MAXIMUM] = "max"};
  Term term = {CONSTANT, 0};
  if (read_digits(text, end, &term.value)) return term;
  for (int32_t operation = ADD; operation <= MAXIMUM; operation++) {
    if (is_word(text, end, words[operation])) return (Term){operation, 0};
  }
  const char *const *names = (const char *const *)(const void *)reader->dimensions.data;
  for (size_t i = 0; i < items(&reader->dimensions, sizeof *names); i++) {
    if (is_word(text, end, names[i])) return (Term){DIMENSION, (int64_t)i};
  }
  check(reader, false, "holds an expression of unknown words");
  return term;
}

static Expression read_expression(Reader *reader, const JsonValue *value) {
  Expression expression = {(uint32_t)items(&reader->terms, sizeof(Term)), 0};
  int depth = 0;
  if (value->kind == JSON_INTEGER) {
    Term term = {CONSTANT, value->integer};
    buffer_add(&reader->terms, &term, sizeof term);
    return (Expression){expression.first, 1};
  }
  check(reader, value->kind == JSON_TEXT, "holds an expression that is neither a number nor a text");
  for (const char *at = value->text; at != NULL; expression.count++) {
    const char *end = at;
    while (*end != ' ' && *end != '\0') end++; /* words are short: strchr() would take longer to call */
    Term term = read_term(reader, at, end);
    depth += term.operation == CONSTANT || term.operation == DIMENSION ? 1 : -1;
    check(reader, depth > 0 && depth <= MAX_DEPTH && expression.count < MAX_TERMS, "holds an expression that does not add up");
    buffer_add(&reader->terms, &term, sizeof term);
    at = *end == ' ' ? end + 1 : NULL;
  }
  check(reader, depth == 1, "holds an expression that does not add up");
  return expression;
}

static bool divide(int64_t left, int64_t right, int64_t *quotient, int64_t *rest) {
  if (right == 0 || (left == INT64_MIN && right == -1)) return false;
  *quotient = left / right;
  *rest = left % right;
  if (*rest != 0 && (*rest < 0) != (right < 0)) { /* towards minus infinity */
    --*quotient;
    *rest += right;
  }
  return true;
}

static bool operate(int32_t operation, int64_t left, int64_t right, int64_t *result) {
  int64_t other;
  switch (operation) {
    case ADD: return !__builtin_add_overflow(left, right, result);
    case SUBTRACT: return !__builtin_sub_overflow(left, right, result);
    case MULTIPLY: return !__builtin_mul_overflow(left, right, result);
    case DIVIDE: return divide(left, right, result, &other);
    case REMAINDER: return divide(left, right, &other, result);
    case MINIMUM: *result = left < right ? left : right; return true;
    default: *result = left > right ? left : right; return true;
  }
}

int64_t evaluate(const Memory *memory, const Plan *plan, Expression expression, const int64_t *sizes) {
  int64_t stack[MAX_DEPTH];
  size_t depth = 0;
  for (uint32_t i = 0; i < expression.count; i++) {
    const Term *term = &plan->terms[expression.first + i];
    if (term->operation == CONSTANT || term->operation == DIMENSION) {
      stack[depth++] = term->operation == CONSTANT ? term->value : sizes[term->value];
      continue;
    }
    depth--;
    if (!operate(term->operation, stack[depth - 1], stack[depth], &stack[depth - 1])) {
      fail(memory, EDGEQ_DAMAGED, "the plan computes a size that is not possible; compile the bundle again");
    }
  }
  return stack[0];
}

/* ---- arguments ---- */

static Argument read_integer_argument(Reader *reader, const JsonValue *value) {
  const JsonValue *number = json_find(value, "int");
  check(reader, number != NULL, "has an argument that is neither a tensor nor a number");
  Expression expression = read_expression(reader, number);
  Argument argument = {OF_INTEGER, (uint32_t)items(&reader->integers, sizeof expression)};
  buffer_add(&reader->integers, &expression, sizeof expression);
  return argument;
}

/* `tensors` is how many of the plan's are known: views refer to earlier ones only. */
static Argument read_argument(Reader *reader, const JsonValue *value, size_t tensors) {
  const Interface *interface = reader->interface;
  const struct {
    char letter;
    Origin origin;
    size_t count;
  } kinds[] = {{'i', OF_INPUT, interface->input_count},
               {'s', OF_STATE, interface->state_count},
               {'w', OF_WEIGHT, interface->weight_count},
               {'t', OF_TENSOR, tensors}};
  int64_t index = -1;
  if (value->kind != JSON_TEXT) return read_integer_argument(reader, value);
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (value->text[0] != kinds[i].letter) continue;
    bool fits = read_digits(value->text + 1, value->text + strlen(value->text), &index);
    check(reader, fits && (uint64_t)index < kinds[i].count, "refers to a tensor that is not there");
    return (Argument){kinds[i].origin, (uint32_t)index};
  }
  check(reader, false, "has an argument of an unknown kind");
  return (Argument){OF_INPUT, 0};
}

Argument root_of(const Plan *plan, Argument argument) {
  while (argument.origin == OF_TENSOR && plan->tensors[argument.index].is_view) {
    argument = plan->tensors[argument.index].base;
  }
  return argument;
}

/* A step, or the end of the plan, uses an argument. */
static void note_use(Plan *plan, Argument argument, uint32_t step) {
  Argument root = root_of(plan, argument);
  if (root.origin != OF_TENSOR) return;
  PlanTensor *tensor = &plan->tensors[root.index];
  if (step < tensor->first) tensor->first = step;
  if (step > tensor->last) tensor->last = step;
}

/* ---- parts of the plan ---- */

static bool is_dimension(const Reader *reader, const char *name) {
  const char *const *names = (const char *const *)(const void *)reader->dimensions.data;
  for (size_t i = 0; i < items(&reader->dimensions, sizeof *names); i++) {
    if (strcmp(names[i], name) == 0) return true;
  }
  return false;
}

static void add_dimensions(Reader *reader, const Spec *specs, size_t count) {
  for (size_t i = 0; i < count; i++) {
    for (int at = 0; at < specs[i].rank; at++) {
      const char *name = specs[i].dimensions[at];
      if (name == NULL || is_dimension(reader, name)) continue;
      check(reader, items(&reader->dimensions, sizeof name) < MAX_DIMENSIONS, "has too many dimensions");
      buffer_add(&reader->dimensions, &name, sizeof name);
    }
  }
}

/* Those of the inputs and caches; the plan lists the ones that it uses. */
static void read_dimensions(Reader *reader, const JsonValue *table) {
  add_dimensions(reader, reader->interface->inputs, reader->interface->input_count);
  add_dimensions(reader, reader->interface->state, reader->interface->state_count);
  const JsonValue *list = json_member(reader->json, table, "dims", JSON_ARRAY);
  for (const JsonValue *item = json_first(list); item != NULL; item = item->next) {
    bool fits = item->kind == JSON_TEXT && is_dimension(reader, item->text);
    check(reader, fits, "names a dimension that no input and no cache has");
  }
}

static void read_tensor(Reader *reader, const JsonValue *item) {
  Plan *plan = reader->plan;
  PlanTensor *tensor = &plan->tensors[plan->tensor_count];
  const JsonValue *base = json_find(item, "of"), *shape = json_member(reader->json, item, "shape", JSON_ARRAY);
  tensor->type = read_type(reader->json, item);
  tensor->first = UINT32_MAX;
  check(reader, shape->count <= EDGEQ_MAX_RANK, "has a tensor of too many dimensions");
  for (const JsonValue *size = json_first(shape); size != NULL; size = size->next) {
    tensor->shape[tensor->rank++] = read_expression(reader, size);
  }
  if (base != NULL) {
    tensor->is_view = true;
    tensor->base = read_argument(reader, base, plan->tensor_count);
    check(reader, tensor->base.origin != OF_INTEGER, "has a view of a number");
  }
  plan->tensor_count++;
}

static uint32_t kernel_number(Reader *reader, const char *name) {
  const char **names = (const char **)(void *)reader->kernels.data;
  size_t count = items(&reader->kernels, sizeof *names);
  for (size_t i = 0; i < count; i++) {
    if (strcmp(names[i], name) == 0) return (uint32_t)i;
  }
  check(reader, count < MAX_KERNELS, "calls too many kernels");
  const char *own = copy_text(reader->memory, name);
  buffer_add(&reader->kernels, &own, sizeof own);
  return (uint32_t)count;
}

/* Which rows of a weight a step reads, if the plan says so. */
static void read_rows(Reader *reader, const JsonValue *item, PlanStep *step) {
  const Argument *arguments = (const Argument *)(void *)reader->arguments.data + step->first_argument;
  const JsonValue *rows = json_find(item, "rows");
  if (rows == NULL) return;
  step->reads_rows = true;
  step->ids = (uint32_t)json_integer(reader->json, rows, "ids", 0, MAX_ARGUMENTS);
  step->table = (uint32_t)json_integer(reader->json, rows, "table", 0, MAX_ARGUMENTS);
  step->tile = (uint32_t)json_integer(reader->json, rows, "tile", 1, INT32_MAX);
  bool fits = step->ids < step->argument_count && step->table < step->argument_count &&
              arguments[step->ids].origin != OF_INTEGER && arguments[step->table].origin == OF_WEIGHT;
  check(reader, fits, "reads rows of what is no weight");
}

static void read_step(Reader *reader, const JsonValue *item) {
  Plan *plan = reader->plan;
  PlanStep *step = &plan->steps[plan->step_count];
  const JsonValue *list = json_member(reader->json, item, "args", JSON_ARRAY);
  step->kernel = kernel_number(reader, json_text(reader->json, item, "kernel"));
  step->first_argument = (uint32_t)items(&reader->arguments, sizeof(Argument));
  step->argument_count = list->count;
  check(reader, list->count <= MAX_ARGUMENTS, "calls a kernel with too many arguments");
  for (const JsonValue *value = json_first(list); value != NULL; value = value->next) {
    Argument argument = read_argument(reader, value, plan->tensor_count);
    buffer_add(&reader->arguments, &argument, sizeof argument);
    note_use(plan, argument, (uint32_t)plan->step_count);
  }
  read_rows(reader, item, step);
  const JsonValue *workspace = json_find(item, "workspace");
  step->has_workspace = workspace != NULL;
  if (workspace != NULL) step->workspace = read_expression(reader, workspace);
  plan->step_count++;
}

static void read_outputs(Reader *reader, const JsonValue *table) {
  Plan *plan = reader->plan;
  const JsonValue *list = json_member(reader->json, table, "outputs", JSON_ARRAY);
  check(reader, list->count == reader->interface->output_count, "has another number of outputs than the function");
  plan->outputs = allocate(reader->memory, list->count, sizeof *plan->outputs);
  size_t at = 0;
  for (const JsonValue *value = json_first(list); value != NULL; value = value->next, at++) {
    plan->outputs[at] = read_argument(reader, value, plan->tensor_count);
    check(reader, plan->outputs[at].origin != OF_INTEGER, "has an output that is a number");
    note_use(plan, plan->outputs[at], (uint32_t)plan->step_count);
  }
}

static const JsonValue *read_list(const Reader *reader, const JsonValue *table, const char *key, uint32_t most) {
  const JsonValue *list = json_member(reader->json, table, key, JSON_ARRAY);
  check(reader, list->count <= most, "has too many tensors or steps");
  return list;
}

Plan *read_plan(Memory *memory, const Json *json, const JsonValue *table, const Interface *interface) {
  Plan *plan = allocate(memory, 1, sizeof *plan);
  Buffer empty = {.memory = memory};
  Reader reader = {memory, json, interface, plan, empty, empty, empty, empty, empty};
  const JsonValue *tensors = read_list(&reader, table, "tensors", MAX_PLAN_TENSORS);
  const JsonValue *steps = read_list(&reader, table, "steps", MAX_STEPS);
  plan->tensors = allocate(memory, tensors->count, sizeof *plan->tensors);
  plan->steps = allocate(memory, steps->count, sizeof *plan->steps);
  read_dimensions(&reader, table);
  for (const JsonValue *item = json_first(tensors); item != NULL; item = item->next) read_tensor(&reader, item);
  for (const JsonValue *item = json_first(steps); item != NULL; item = item->next) read_step(&reader, item);
  read_outputs(&reader, table);
  plan->dimensions = (const char **)(void *)reader.dimensions.data;
  plan->dimension_count = items(&reader.dimensions, sizeof *plan->dimensions);
  plan->terms = (Term *)(void *)reader.terms.data;
  plan->integers = (Expression *)(void *)reader.integers.data;
  plan->arguments = (Argument *)(void *)reader.arguments.data;
  plan->kernels = (const char **)(void *)reader.kernels.data;
  plan->kernel_count = items(&reader.kernels, sizeof *plan->kernels);
  return plan;
}
