/* Characters in UTF-8. All but character_size take texts that are known to be valid. */
#ifndef EDGEQ_UTF8_H
#define EDGEQ_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "names.h"

/* Bytes of the character at `at`, of which `left` are there; 0 if they are no UTF-8. */
size_t character_size(const char *at, size_t left);

/* Whether a whole text is valid. */
bool is_utf8(const char *text, size_t size);

/* The character at a place, and the places after it and of the one before. */
uint32_t character_at(const char *text, size_t at);
size_t character_after(const char *text, size_t at);
size_t character_before(const char *text, size_t at);

/* Writes a character, at most 4 bytes; returns how many. */
size_t put_character(char *out, uint32_t character);

#endif
