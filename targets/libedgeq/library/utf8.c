#include "utf8.h"

size_t character_size(const char *text, size_t left) {
  const unsigned char *at = (const unsigned char *)text;
  size_t size = at[0] < 0x80 ? 1 : at[0] >= 0xC2 && at[0] < 0xE0 ? 2 : (at[0] & 0xF0) == 0xE0 ? 3
                : at[0] >= 0xF0 && at[0] < 0xF5                  ? 4
                                                                 : 0;
  if (size == 0 || size > left) return 0;
  for (size_t i = 1; i < size; i++) {
    if ((at[i] & 0xC0) != 0x80) return 0;
  }
  if (at[0] == 0xE0 && at[1] < 0xA0) return 0; /* longer than needed */
  if (at[0] == 0xED && at[1] > 0x9F) return 0; /* surrogate */
  if (at[0] == 0xF0 && at[1] < 0x90) return 0;
  if (at[0] == 0xF4 && at[1] > 0x8F) return 0;
  return size;
}

bool is_utf8(const char *text, size_t size) {
  for (size_t at = 0; at < size;) {
    size_t length = character_size(text + at, size - at);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

uint32_t character_at(const char *text, size_t place) {
  const unsigned char *at = (const unsigned char *)text + place;
  if (at[0] < 0x80) return at[0];
  if (at[0] < 0xE0) return (at[0] & 0x1Fu) << 6 | (at[1] & 0x3Fu);
  if (at[0] < 0xF0) return (at[0] & 0x0Fu) << 12 | (at[1] & 0x3Fu) << 6 | (at[2] & 0x3Fu);
  return (at[0] & 0x07u) << 18 | (at[1] & 0x3Fu) << 12 | (at[2] & 0x3Fu) << 6 | (at[3] & 0x3Fu);
}

size_t character_after(const char *text, size_t place) {
  unsigned char first = (unsigned char)text[place];
  return place + (first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4);
}

size_t character_before(const char *text, size_t place) {
  do place--;
  while (((unsigned char)text[place] & 0xC0) == 0x80);
  return place;
}

size_t put_character(char *out, uint32_t code) {
  size_t size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  if (size == 1) {
    out[0] = (char)code;
    return 1;
  }
  for (size_t i = size - 1; i > 0; i--, code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
  out[0] = (char)((0xF00 >> size & 0xFF) | code);
  return size;
}
