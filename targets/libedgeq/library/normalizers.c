#include "normalizers.h"

#include "characters.h"
#include "charsmap.h"
#include "composing.h"
#include "pattern.h"
#include "utf8.h"

static void replace(const TokenizerTable *table, const Step *step, const Traced *text, Traced *out) {
  const char *data = text->text.data;
  size_t size = text->text.size, from = 0, start = 0, end = 0;
  while (pattern_find(text->text.memory, table, step->a, data, size, from, &start, &end)) {
    traced_copy(out, text, from, start);
    traced_add(out, table->strings + step->b, step->c, place_of(text, end - 1));
    from = end;
  }
  traced_copy(out, text, from, size);
}

static void strip(const TokenizerTable *table, const Step *step, const Traced *text, Traced *out) {
  const char *data = text->text.data;
  size_t start = 0, end = text->text.size;
  while (step->a != 0 && start < end && set_has(table, step->c, character_at(data, start))) {
    start = character_after(data, start);
  }
  while (step->b != 0 && end > start && set_has(table, step->c, character_at(data, character_before(data, end)))) {
    end = character_before(data, end);
  }
  traced_copy(out, text, start, end);
}

static void take_step(const TokenizerTable *table, const Step *step, const Traced *text, Traced *out) {
  if (step->kind == MAP) map_characters(table, step, text, out);
  if (step->kind == REPLACE) replace(table, step, text, out);
  if (step->kind == COMPOSE) compose_characters(table, step, text, out);
  if (step->kind == CHARSMAP && step->a == 0) map_clusters(table, text, out);
  if (step->kind == CHARSMAP && step->a != 0) map_longest(table, text, out);
  if (step->kind == STRIP) strip(table, step, text, out);
  if (step->kind == PREPEND) {
    traced_add(out, table->strings + step->a, step->b, place_of(text, 0));
    traced_copy(out, text, 0, text->text.size);
  }
}

void normalize(const TokenizerTable *table, Traced *text) {
  for (size_t i = 0; i < table->normalizer_count && text->text.size > 0; i++) {
    Traced next = traced_like(text);
    take_step(table, &table->normalizers[i], text, &next);
    traced_release(text);
    *text = next;
  }
}
