#include "pattern.h"

#include "characters.h"
#include "utf8.h"

enum { NEGATED = 1, BEHIND = 2, DEEPEST_LOOK = 8 };

static const unsigned char OPERANDS[OPERATIONS] = {
    [OP_CHARACTER] = 1, [OP_SET] = 1, [OP_JUMP] = 1, [OP_TRY] = 2, [OP_LOOK] = 3, [OP_BOUNDARY] = 2};

/* Where to go on if what is being tried fails. */
typedef struct {
  size_t code, at;
} Choice;

typedef struct {
  Memory *memory;
  const TokenizerTable *table;
  const char *text;
  size_t size;
  Choice *choices;
  size_t count, room, steps, most_steps;
  int depth; /* of looks inside looks */
} Machine;

bool pattern_fits(Memory *memory, const TokenizerTable *table) {
  const uint32_t *code = table->code;
  size_t size = table->code_size, at = 0;
  bool *is_start = allocate(memory, size + 1, sizeof *is_start), fits = true;
  for (; at < size; at += 1 + OPERANDS[code[at]]) {
    is_start[at] = true;
    if (code[at] >= OPERATIONS || OPERANDS[code[at]] >= size - at) {
      release(memory, is_start);
      return false;
    }
  }
  for (at = 0; fits && at < size; at += 1 + OPERANDS[code[at]]) {
    const uint32_t *operand = code + at + 1;
    if (code[at] == OP_SET || code[at] == OP_BOUNDARY) fits = operand[0] < table->set_count;
    if (code[at] == OP_JUMP) fits = operand[0] < size && is_start[operand[0]];
    if (code[at] == OP_TRY) fits = operand[0] < size && operand[1] < size && is_start[operand[0]] && is_start[operand[1]];
    if (code[at] == OP_LOOK) fits = operand[0] <= 3 && operand[2] < size && is_start[operand[2]];
  }
  /* Nothing may run off the end. */
  fits = fits && (size == 0 || (is_start[size - 1] && code[size - 1] == OP_MATCH));
  for (size_t i = 0; fits && i < table->normalizer_count; i++) {
    const Step *step = &table->normalizers[i];
    fits = step->kind != REPLACE || is_start[step->a];
  }
  for (size_t i = 0; fits && i < table->splitter_count; i++) {
    const Step *step = &table->splitters[i];
    fits = step->kind != SPLIT || is_start[step->a];
  }
  release(memory, is_start);
  return fits;
}

static void remember(Machine *machine, size_t code, size_t at) {
  if (machine->count == machine->room) {
    size_t room = machine->room * 2 + 64, used = machine->count * sizeof *machine->choices;
    machine->choices = reallocate(machine->memory, machine->choices, used, room * sizeof *machine->choices);
    machine->room = room;
  }
  machine->choices[machine->count++] = (Choice){code, at};
}

static bool in_set(const Machine *machine, uint32_t set, size_t at) {
  return at < machine->size && set_has(machine->table, set, character_at(machine->text, at));
}

static bool run(Machine *machine, size_t code, size_t at, size_t *end);

static bool look(Machine *machine, size_t code, size_t at) {
  const uint32_t *operand = machine->table->code + code + 1;
  size_t start = at, end = 0;
  bool found = true;
  if (++machine->depth > DEEPEST_LOOK) fail(machine->memory, EDGEQ_FAILED, "a pattern of the tokenizer is nested too deeply");
  if (operand[0] & BEHIND) {
    for (uint32_t i = 0; found && i < operand[1]; i++) {
      found = start > 0;
      if (found) start = character_before(machine->text, start);
    }
  }
  found = found && run(machine, code + 4, start, &end);
  machine->depth--;
  return found != ((operand[0] & NEGATED) != 0);
}

/* Whether an operation that takes no text holds at this place. */
static bool holds(Machine *machine, size_t code, size_t at) {
  const uint32_t *word = machine->table->code + code;
  switch (word[0]) {
    case OP_LOOK: return look(machine, code, at);
    case OP_LINE_START: return at == 0 || machine->text[at - 1] == '\n';
    case OP_LINE_END: return at == machine->size || machine->text[at] == '\n';
    case OP_TEXT_START: return at == 0;
    case OP_TEXT_END: return at == machine->size;
    default: {
      bool before = at > 0 && in_set(machine, word[1], character_before(machine->text, at));
      return (before != in_set(machine, word[1], at)) != (word[2] != 0);
    }
  }
}

/* Runs the code from `code` at place `at` to its OP_MATCH. */
static bool run(Machine *machine, size_t code, size_t at, size_t *end) {
  const uint32_t *words = machine->table->code;
  size_t bottom = machine->count;
  for (;;) {
    bool alive = true;
    const uint32_t *word = words + code;
    if (++machine->steps > machine->most_steps) fail(machine->memory, EDGEQ_FAILED, "a pattern of the tokenizer takes too long");
    switch (word[0]) {
      case OP_MATCH:
        *end = at;
        machine->count = bottom;
        return true;
      case OP_JUMP: code = word[1]; break;
      case OP_TRY:
        remember(machine, word[2], at);
        code = word[1];
        break;
      case OP_CHARACTER:
        alive = at < machine->size && character_at(machine->text, at) == word[1];
        if (alive) at = character_after(machine->text, at);
        code += 2;
        break;
      case OP_SET:
        alive = in_set(machine, word[1], at);
        if (alive) at = character_after(machine->text, at);
        code += 2;
        break;
      default:
        alive = holds(machine, code, at);
        code = word[0] == OP_LOOK ? word[3] : code + 1 + OPERANDS[word[0]];
    }
    if (!alive) {
      if (machine->count == bottom) return false;
      Choice choice = machine->choices[--machine->count];
      code = choice.code;
      at = choice.at;
    }
  }
}

bool pattern_find(Memory *memory, const TokenizerTable *table, size_t program, const char *text, size_t size, size_t from,
                  size_t *start, size_t *end) {
  Machine machine = {.memory = memory, .table = table, .text = text, .size = size, .most_steps = 1000 * (size - from + 1000)};
  bool found = false;
  for (size_t at = from; !found && at < size; at = character_after(text, at)) {
    found = run(&machine, program, at, end) && *end > at;
    *start = at;
  }
  release(memory, machine.choices);
  return found;
}
