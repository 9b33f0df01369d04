#include "changes.h"

#include <string.h>

#include "utf8.h"

static void skip(Changes *changes) {
  if (changes->at < changes->text->text.size) changes->at = character_after(changes->text->text.data, changes->at);
}

void changes_flush(Changes *changes) {
  if (changes->held_size == 0) return;
  Place place = {0, 0};
  if (changes->change > 0) {
    if (changes->at > 0) place = place_of(changes->text, changes->at - 1);
  } else if (changes->at < changes->text->text.size) {
    place = place_of(changes->text, changes->at);
  }
  traced_add(changes->out, changes->held, changes->held_size, place);
  if (changes->change <= 0) skip(changes);
  for (; changes->change < 0; changes->change++) skip(changes);
  changes->held_size = 0;
}

void changes_put(Changes *changes, const char *character, size_t size, int64_t change) {
  changes_flush(changes);
  memcpy(changes->held, character, size);
  changes->held_size = size;
  changes->change = change;
}

void changes_leave_out(Changes *changes, size_t count) {
  if (changes->held_size > 0) changes->change -= (int64_t)count;
}
