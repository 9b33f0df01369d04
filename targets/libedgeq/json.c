#include "json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "utf8.h"

enum { MAX_DEPTH = 32 };

typedef struct {
  const char *start;
  const char *at;
  const char *end;
  const char *file;
  int depth;
} Reader;

static JsonValue *read_value(Reader *reader);

static _Noreturn void malformed(const Reader *reader, const char *reason) {
  fail(EXIT_FAULT, "%s is not valid JSON: %s at byte %zu", reader->file, reason,
       (size_t)(reader->at - reader->start));
}

static void skip_space(Reader *reader) {
  while (reader->at < reader->end && strchr(" \t\n\r", *reader->at) != NULL && *reader->at != '\0') {
    reader->at++;
  }
}

static char peek(const Reader *reader) { return reader->at < reader->end ? *reader->at : '\0'; }

static void expect(Reader *reader, char wanted, const char *reason) {
  if (peek(reader) != wanted) malformed(reader, reason);
  reader->at++;
}

static bool take_word(Reader *reader, const char *word) {
  size_t length = strlen(word);
  if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length) != 0) return false;
  reader->at += length;
  return true;
}

static unsigned read_hex4(Reader *reader) {
  unsigned code = 0;
  if (reader->end - reader->at < 4) malformed(reader, "an escape is cut off");
  for (int i = 0; i < 4; i++) {
    char digit = *reader->at++;
    code <<= 4;
    if (digit >= '0' && digit <= '9') {
      code |= (unsigned)(digit - '0');
    } else if (digit >= 'a' && digit <= 'f') {
      code |= (unsigned)(digit - 'a' + 10);
    } else if (digit >= 'A' && digit <= 'F') {
      code |= (unsigned)(digit - 'A' + 10);
    } else {
      malformed(reader, "an escape needs four hexadecimal digits");
    }
  }
  return code;
}

static char *put_utf8(char *out, unsigned code) {
  if (code < 0x80) {
    *out++ = (char)code;
  } else if (code < 0x800) {
    *out++ = (char)(0xC0 | (code >> 6));
    *out++ = (char)(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    *out++ = (char)(0xE0 | (code >> 12));
    *out++ = (char)(0x80 | ((code >> 6) & 0x3F));
    *out++ = (char)(0x80 | (code & 0x3F));
  } else {
    *out++ = (char)(0xF0 | (code >> 18));
    *out++ = (char)(0x80 | ((code >> 12) & 0x3F));
    *out++ = (char)(0x80 | ((code >> 6) & 0x3F));
    *out++ = (char)(0x80 | (code & 0x3F));
  }
  return out;
}

static char *read_escape(Reader *reader, char *out) {
  static const char names[] = "\"\\/bfnrt";
  static const char values[] = "\"\\/\b\f\n\r\t";
  char kind = peek(reader);
  const char *found = kind != '\0' ? strchr(names, kind) : NULL;
  if (found != NULL) {
    reader->at++;
    *out++ = values[found - names];
    return out;
  }
  expect(reader, 'u', "unknown escape");
  unsigned code = read_hex4(reader);
  if (code >= 0xD800 && code < 0xDC00) {
    if (!take_word(reader, "\\u")) malformed(reader, "half of a surrogate pair");
    unsigned low = read_hex4(reader);
    if (low < 0xDC00 || low > 0xDFFF) malformed(reader, "half of a surrogate pair");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  } else if (code == 0 || (code >= 0xDC00 && code <= 0xDFFF)) {
    malformed(reader, "an escape stands for no character");
  }
  return put_utf8(out, code);
}

static const char *read_text(Reader *reader) {
  expect(reader, '"', "a text is expected");
  const char *close = reader->at;
  while (close < reader->end && *close != '"') close += *close == '\\' && close + 1 < reader->end ? 2 : 1;
  if (close >= reader->end) malformed(reader, "a text is not closed");
  /* No escape is longer decoded than written, so the source length is enough. */
  char *text = allocate((size_t)(close - reader->at) + 1, 1);
  char *out = text;
  while (reader->at < close) {
    unsigned char byte = (unsigned char)*reader->at;
    if (byte == '\\') {
      reader->at++;
      out = read_escape(reader, out);
      continue;
    }
    size_t length = character_size(reader->at, (size_t)(close - reader->at));
    if (byte < 0x20 || length == 0) malformed(reader, "a text holds a byte that is not allowed");
    memcpy(out, reader->at, length);
    out += length;
    reader->at += length;
  }
  expect(reader, '"', "a text is not closed");
  *out = '\0';
  return text;
}

static void read_number(Reader *reader, JsonValue *value) {
  char buffer[64];
  size_t length = 0;
  bool whole = true;
  while (reader->at + length < reader->end && strchr("+-.eE0123456789", reader->at[length]) != NULL &&
         reader->at[length] != '\0') {
    char byte = reader->at[length];
    if (length + 1 >= sizeof buffer) malformed(reader, "a number is too long");
    if (byte == '.' || byte == 'e' || byte == 'E') whole = false;
    buffer[length++] = byte;
  }
  buffer[length] = '\0';
  const char *digits = buffer[0] == '-' ? buffer + 1 : buffer;
  bool starts_well = digits[0] >= '0' && digits[0] <= '9';
  bool leading_zero = digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9';
  if (!starts_well || leading_zero) malformed(reader, "a value is expected");
  char *end = NULL;
  errno = 0;
  value->number = strtod(buffer, &end);
  if (*end != '\0') malformed(reader, "a number is malformed");
  value->kind = JSON_NUMBER;
  if (whole) {
    errno = 0;
    value->integer = strtoll(buffer, &end, 10);
    if (errno != 0 || *end != '\0') malformed(reader, "an integer is too large");
    value->kind = JSON_INTEGER;
  }
  reader->at += length;
}

static void read_children(Reader *reader, JsonValue *parent, char close) {
  JsonValue **tail = &parent->children;
  reader->at++;
  skip_space(reader);
  if (peek(reader) == close) {
    reader->at++;
    return;
  }
  for (;;) {
    const char *key = NULL;
    skip_space(reader);
    if (parent->kind == JSON_OBJECT) {
      key = read_text(reader);
      if (json_find(parent, key) != NULL) malformed(reader, "a key appears twice");
      skip_space(reader);
      expect(reader, ':', "':' is expected");
    }
    JsonValue *child = read_value(reader);
    child->key = key;
    *tail = child;
    tail = &child->next;
    parent->count++;
    skip_space(reader);
    if (peek(reader) == close) break;
    expect(reader, ',', "',' is expected");
  }
  reader->at++;
}

static JsonValue *read_value(Reader *reader) {
  JsonValue *value = allocate(1, sizeof *value);
  skip_space(reader);
  char first = peek(reader);
  if (++reader->depth > MAX_DEPTH) malformed(reader, "it is nested too deeply");
  if (first == '{' || first == '[') {
    value->kind = first == '{' ? JSON_OBJECT : JSON_ARRAY;
    read_children(reader, value, first == '{' ? '}' : ']');
  } else if (first == '"') {
    value->kind = JSON_TEXT;
    value->text = read_text(reader);
  } else if (take_word(reader, "true")) {
    value->kind = JSON_BOOL;
    value->boolean = true;
  } else if (take_word(reader, "false")) {
    value->kind = JSON_BOOL;
  } else if (take_word(reader, "null")) {
    value->kind = JSON_NULL;
  } else {
    read_number(reader, value);
  }
  reader->depth--;
  return value;
}

const JsonValue *json_parse(const char *data, size_t length, const char *file) {
  Reader reader = {data, data, data + length, file, 0};
  const JsonValue *value = read_value(&reader);
  skip_space(&reader);
  if (reader.at != reader.end) malformed(&reader, "something follows the document");
  return value;
}

const JsonValue *json_find(const JsonValue *object, const char *key) {
  for (const JsonValue *child = object->children; child != NULL; child = child->next) {
    if (child->key != NULL && strcmp(child->key, key) == 0) return child;
  }
  return NULL;
}

const JsonValue *json_member(const JsonValue *object, const char *key, JsonKind kind, const char *file) {
  static const char *const names[] = {"null", "true or false", "an integer", "a number",
                                      "a text", "a list",        "an object"};
  if (object->kind != JSON_OBJECT) fail(EXIT_FAULT, "%s: an object with '%s' is expected", file, key);
  const JsonValue *member = json_find(object, key);
  if (member == NULL) fail(EXIT_FAULT, "%s: '%s' is missing", file, key);
  if (member->kind != kind) fail(EXIT_FAULT, "%s: '%s' must be %s", file, key, names[kind]);
  return member;
}

const char *json_text(const JsonValue *object, const char *key, const char *file) {
  return json_member(object, key, JSON_TEXT, file)->text;
}

int64_t json_integer(const JsonValue *object, const char *key, int64_t least, int64_t most, const char *file) {
  int64_t value = json_member(object, key, JSON_INTEGER, file)->integer;
  if (value < least || value > most) {
    fail(EXIT_FAULT, "%s: '%s' is %lld, which is not possible", file, key, (long long)value);
  }
  return value;
}
