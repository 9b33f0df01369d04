#include "json.h"

#include <errno.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "utf8.h"

/* Keys are compared one by one, so an object may not have many. */
enum { MAX_DEPTH = 32, MAX_KEYS = 1024 };

/* Of the memory that values are put in: enough for most manifests. What is not touched takes none. */
enum { CHUNK = 1 << 18 };

typedef struct {
  Memory *memory;
  const char *start, *at, *end;
  const char *file;
  int depth;
  char *free; /* what is left of the newest chunk of memory: values are many and small */
  size_t left;
} Reader;

static JsonValue *read_value(Reader *reader);

static _Noreturn void malformed(const Reader *reader, const char *reason) {
  fail(reader->memory, EDGEQ_DAMAGED, "%s is not valid JSON: %s at byte %zu", reader->file, reason,
       (size_t)(reader->at - reader->start));
}

static void *take(Reader *reader, size_t size) {
  size = (size + 7) / 8 * 8;
  if (size > CHUNK / 4) return allocate(reader->memory, size, 1);
  if (size > reader->left) {
    reader->free = allocate(reader->memory, CHUNK, 1);
    reader->left = CHUNK;
  }
  char *taken = reader->free;
  reader->free += size;
  reader->left -= size;
  return taken;
}

static bool is_space(char byte) { return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r'; }

static void skip_space(Reader *reader) {
  while (reader->at < reader->end && is_space(*reader->at)) reader->at++;
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
  return out + put_character(out, code);
}

/* The rest of a text if every byte of it stands for itself, as nearly always in a manifest; else NULL. */
static const char *read_plain_text(Reader *reader) {
  const char *at = reader->at;
  while (at < reader->end && (unsigned char)*at >= 0x20 && (unsigned char)*at < 0x80 && *at != '\\' && *at != '"') at++;
  if (at == reader->end || *at != '"') return NULL;
  size_t size = (size_t)(at - reader->at);
  char *text = take(reader, size + 1);
  memcpy(text, reader->at, size);
  reader->at = at + 1;
  return text; /* memory is zeroed, so it has an end */
}

static const char *read_text(Reader *reader) {
  expect(reader, '"', "a text is expected");
  const char *plain = read_plain_text(reader);
  if (plain != NULL) return plain;
  const char *close = reader->at;
  while (close < reader->end && *close != '"') close += *close == '\\' && close + 1 < reader->end ? 2 : 1;
  if (close >= reader->end) malformed(reader, "a text is not closed");
  /* No escape is longer decoded than written, so the source length is enough. */
  char *text = take(reader, (size_t)(close - reader->at) + 1);
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

static bool is_of_number(char byte) {
  return (byte >= '0' && byte <= '9') || byte == '+' || byte == '-' || byte == '.' || byte == 'e' || byte == 'E';
}

/* A whole number of few digits that nothing of a number follows: most of those in a manifest. */
static bool read_short_integer(Reader *reader, JsonValue *value) {
  enum { MOST_DIGITS = 18 };
  const char *at = reader->at;
  int64_t number = 0;
  while (at < reader->end && *at >= '0' && *at <= '9' && at - reader->at < MOST_DIGITS) number = number * 10 + (*at++ - '0');
  bool leading_zero = at - reader->at > 1 && *reader->at == '0';
  if (at == reader->at || at == reader->end || leading_zero || is_of_number(*at)) return false;
  *value = (JsonValue){.kind = JSON_INTEGER, .integer = number};
  reader->at = at;
  return true;
}

static void read_number(Reader *reader, JsonValue *value) {
  char buffer[64];
  size_t length = 0;
  bool whole = true;
  while (reader->at + length < reader->end && is_of_number(reader->at[length])) {
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
  if (whole) {
    value->kind = JSON_INTEGER;
    value->integer = strtoll(buffer, &end, 10);
    if (errno != 0 || *end != '\0') malformed(reader, "an integer is too large");
  } else {
    value->kind = JSON_NUMBER;
    /* The program around may have chosen a language that writes a comma. */
    char *point = strchr(buffer, '.');
    if (point != NULL) *point = *localeconv()->decimal_point;
    value->number = strtod(buffer, &end);
    if (*end != '\0') malformed(reader, "a number is malformed");
  }
  reader->at += length;
}

static void read_children(Reader *reader, JsonValue *parent, char close) {
  JsonValue **tail = &parent->children;
  parent->children = NULL;
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
      if (parent->count == MAX_KEYS) malformed(reader, "an object has too many keys");
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
  JsonValue *value = take(reader, sizeof *value);
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
  } else if (!read_short_integer(reader, value)) {
    read_number(reader, value);
  }
  reader->depth--;
  return value;
}

Json json_parse(Memory *memory, const char *data, size_t length, const char *file) {
  Reader reader = {.memory = memory, .start = data, .at = data, .end = data + length, .file = file};
  const JsonValue *value = read_value(&reader);
  skip_space(&reader);
  if (reader.at != reader.end) malformed(&reader, "something follows the document");
  return (Json){memory, file, value};
}

const JsonValue *json_first(const JsonValue *value) {
  return value->kind == JSON_ARRAY || value->kind == JSON_OBJECT ? value->children : NULL;
}

/* Keys are short, and nearly all comparisons end at once: no call. */
static bool is_same(const char *key, const char *other) {
  while (*key == *other && *key != '\0') key++, other++;
  return *key == *other;
}

const JsonValue *json_find(const JsonValue *object, const char *key) {
  for (const JsonValue *child = json_first(object); child != NULL; child = child->next) {
    if (child->key != NULL && is_same(child->key, key)) return child;
  }
  return NULL;
}

double json_number(const JsonValue *value) {
  return value->kind == JSON_INTEGER ? (double)value->integer : value->number;
}

const JsonValue *json_member(const Json *json, const JsonValue *object, const char *key, JsonKind kind) {
  static const char *const names[] = {"null", "true or false", "an integer", "a number",
                                      "a text", "a list",        "an object"};
  json_check(json, object->kind == JSON_OBJECT, "an object with '%s' is expected", key);
  const JsonValue *member = json_find(object, key);
  json_check(json, member != NULL, "'%s' is missing", key);
  json_check(json, member->kind == kind, "'%s' must be %s", key, names[kind]);
  return member;
}

const char *json_text(const Json *json, const JsonValue *object, const char *key) {
  return json_member(json, object, key, JSON_TEXT)->text;
}

int64_t json_integer(const Json *json, const JsonValue *object, const char *key, int64_t least, int64_t most) {
  int64_t value = json_member(json, object, key, JSON_INTEGER)->integer;
  json_check(json, value >= least && value <= most, "'%s' is %lld, which is not possible", key, (long long)value);
  return value;
}

void json_check(const Json *json, bool fits, const char *format, ...) {
  char what[SENTENCE_SIZE];
  va_list arguments;
  if (fits) return;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  fail(json->memory, EDGEQ_DAMAGED, "%s: %s; compile the bundle again", json->file, what);
}
