/* A strict reader for the manifest: RFC 8259, UTF-8, no duplicate keys, bounded depth. */
#ifndef EDGEQ_JSON_H
#define EDGEQ_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { JSON_NULL, JSON_BOOL, JSON_INTEGER, JSON_NUMBER, JSON_TEXT, JSON_ARRAY, JSON_OBJECT } JsonKind;

typedef struct JsonValue JsonValue;
struct JsonValue {
  JsonKind kind;
  bool boolean;
  int64_t integer;     /* JSON_INTEGER */
  double number;       /* JSON_INTEGER and JSON_NUMBER */
  const char *text;    /* JSON_TEXT: NUL-terminated, holds no other NUL */
  const char *key;     /* name of this value inside its object */
  JsonValue *children; /* JSON_ARRAY and JSON_OBJECT: linked list in file order */
  JsonValue *next;
  size_t count; /* number of children */
};

/* Parses `length` bytes; `file` names them in messages. Stops the program on any error. */
const JsonValue *json_parse(const char *data, size_t length, const char *file);

/* Member of an object, or NULL. */
const JsonValue *json_find(const JsonValue *object, const char *key);

/* Typed members; `file` names the document. They stop the program if the member is missing or of another
 * kind, and json_integer also if it lies outside [least, most]. */
const JsonValue *json_member(const JsonValue *object, const char *key, JsonKind kind, const char *file);
const char *json_text(const JsonValue *object, const char *key, const char *file);
int64_t json_integer(const JsonValue *object, const char *key, int64_t least, int64_t most, const char *file);

#endif
