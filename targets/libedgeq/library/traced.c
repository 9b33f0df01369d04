#include "traced.h"

#include "utf8.h"

Traced traced_like(const Traced *like) {
  Memory *memory = like->text.memory;
  return (Traced){{.memory = memory}, {.memory = memory}, like->is_traced, like->begins};
}

Traced traced_text(Memory *memory, const char *text, size_t size, bool is_traced) {
  Traced traced = {{.memory = memory}, {.memory = memory}, is_traced, true};
  buffer_add(&traced.text, text, size);
  for (size_t at = 0; is_traced && at < size;) {
    size_t end = character_after(text, at);
    Place place = {(uint32_t)at, (uint32_t)end};
    for (; at < end; at++) buffer_add(&traced.places, &place, sizeof place);
  }
  return traced;
}

void traced_add(Traced *to, const char *bytes, size_t size, Place place) {
  buffer_add(&to->text, bytes, size);
  for (size_t i = 0; to->is_traced && i < size; i++) buffer_add(&to->places, &place, sizeof place);
}

void traced_copy(Traced *to, const Traced *from, size_t start, size_t end) {
  if (start >= end) return;
  buffer_add(&to->text, from->text.data + start, end - start);
  if (to->is_traced) {
    buffer_add(&to->places, from->places.data + start * sizeof(Place), (end - start) * sizeof(Place));
  }
}

const Place *places_of(const Traced *text) {
  return text->is_traced ? (const Place *)(const void *)text->places.data : NULL;
}

Place place_of(const Traced *text, size_t at) {
  return text->is_traced ? places_of(text)[at] : (Place){0, 0};
}

void traced_release(Traced *text) {
  buffer_release(&text->text);
  buffer_release(&text->places);
}
