/* A strict reader for the manifest: RFC 8259, UTF-8, no duplicate keys, bounded depth. */
#ifndef EDGEQ_JSON_H
#define EDGEQ_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "memory.h"

typedef enum { JSON_NULL, JSON_BOOL, JSON_INTEGER, JSON_NUMBER, JSON_TEXT, JSON_ARRAY, JSON_OBJECT } JsonKind;

typedef struct JsonValue JsonValue;
struct JsonValue {
  JsonKind kind;
  uint32_t count; /* of children */
  union {
    bool boolean;
    int64_t integer;
    double number;
    const char *text;    /* NUL-terminated, holds no other NUL */
    JsonValue *children; /* JSON_ARRAY and JSON_OBJECT: linked list in file order */
  };
  const char *key; /* name of this value inside its object */
  JsonValue *next;
};

/* A parsed document. It and all its texts are given back with `memory`. */
typedef struct {
  Memory *memory;
  const char *file; /* names the document in messages */
  const JsonValue *root;
} Json;

/* Parses `length` bytes; fails on any error. */
Json json_parse(Memory *memory, const char *data, size_t length, const char *file);

/* Member of an object, or NULL. */
const JsonValue *json_find(const JsonValue *object, const char *key);

/* First item of a list or member of an object, NULL if there is none or it is something else. */
const JsonValue *json_first(const JsonValue *value);

/* The number of a JSON_INTEGER or JSON_NUMBER. */
double json_number(const JsonValue *value);

/* Typed members. They fail if the member is missing or of another kind, and json_integer also if it lies outside [least,
 * most]. */
const JsonValue *json_member(const Json *json, const JsonValue *object, const char *key, JsonKind kind);
const char *json_text(const Json *json, const JsonValue *object, const char *key);
int64_t json_integer(const Json *json, const JsonValue *object, const char *key, int64_t least, int64_t most);

/* Fails with EDGEQ_DAMAGED unless `fits`; the sentence is "<file>: <what>; <compile the bundle again>". */
void json_check(const Json *json, bool fits, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
