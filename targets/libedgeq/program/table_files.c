#include "table_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "input_file.h"
#include "output.h"
#include "stop.h"

static const char *const FIRST[] = {"text", "sentence", "question"}, *const SECOND[] = {"text_pair", "context"};

/* A part of a file, or a text that was made of one. */
typedef struct {
  const char *data;
  size_t size;
} Part;

/* A named value of a row. */
typedef struct {
  Part name, value; /* a JSON value as it stands, or the text of a cell */
} Field;

typedef struct {
  Field *fields;
  size_t count;
} Fields;

static void add_field(Fields *fields, Field field) {
  fields->fields = grow(fields->fields, (fields->count + 1) * sizeof *fields->fields);
  fields->fields[fields->count++] = field;
}

static bool is_name(Part part, const char *name) { return part.size == strlen(name) && memcmp(part.data, name, part.size) == 0; }

/* Number of the field of this name, or how many there are. */
static size_t find_field(const Fields *fields, const char *name) {
  size_t at = 0;
  while (at < fields->count && !is_name(fields->fields[at].name, name)) at++;
  return at;
}

/* Number of the field with the text: the one that is named, or the only one of the usual names. */
static size_t text_field(const Fields *fields, const char *column, const char *path, size_t line) {
  size_t found = fields->count, usual = 0;
  if (column != NULL) {
    found = find_field(fields, column);
    if (found == fields->count) stop(EXIT_USAGE, "%s, line %zu has no '%s'", path, line, column);
    return found;
  }
  for (size_t i = 0; i < sizeof FIRST / sizeof *FIRST; i++) {
    size_t at = find_field(fields, FIRST[i]);
    if (at == fields->count) continue;
    found = at;
    usual++;
  }
  if (usual != 1) stop(EXIT_USAGE, "%s, line %zu: name the texts by --column", path, line);
  return found;
}

static size_t second_field(const Fields *fields) {
  size_t at = find_field(fields, SECOND[0]);
  return at < fields->count ? at : find_field(fields, SECOND[1]);
}

/* ---- JSON ---- */

typedef struct {
  const char *at, *end, *path;
  size_t line;
} Scanner;

_Noreturn static void fail_at(const Scanner *scanner, const char *expected) {
  stop(EXIT_FAULT, "%s, line %zu: expected %s", scanner->path, scanner->line, expected);
}

static void skip_space(Scanner *scanner) {
  while (scanner->at < scanner->end && strchr(" \t\r", *scanner->at) != NULL && *scanner->at != '\0') scanner->at++;
}

static bool take(Scanner *scanner, char sign) {
  skip_space(scanner);
  if (scanner->at == scanner->end || *scanner->at != sign) return false;
  scanner->at++;
  return true;
}

static uint32_t read_hex(Scanner *scanner) {
  uint32_t code = 0;
  for (int i = 0; i < 4; i++) {
    char digit = scanner->at < scanner->end ? *scanner->at++ : '\0';
    const char *const digits = "0123456789abcdef0123456789ABCDEF", *found = digit != '\0' ? strchr(digits, digit) : NULL;
    if (found == NULL) fail_at(scanner, "four hexadecimal digits after \\u");
    code = code * 16 + (uint32_t)((found - digits) % 16);
  }
  return code;
}

/* Writes a code point in UTF-8; returns how many bytes. */
static size_t put_code(char *out, uint32_t code) {
  size_t size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  if (size == 1) {
    out[0] = (char)code;
    return 1;
  }
  for (size_t i = size - 1; i > 0; i--, code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
  out[0] = (char)((0xF00 >> size & 0xFF) | code);
  return size;
}

static size_t read_escape(Scanner *scanner, char *out) {
  char kind = scanner->at < scanner->end ? *scanner->at++ : '\0';
  const char *const kinds = "\"\\/bfnrt", *const values = "\"\\/\b\f\n\r\t", *found = kind != '\0' ? strchr(kinds, kind) : NULL;
  if (found != NULL) {
    *out = values[found - kinds];
    return 1;
  }
  if (kind != 'u') fail_at(scanner, "a known sign after a backslash");
  uint32_t code = read_hex(scanner);
  if (code >= 0xD800 && code < 0xDC00) {
    bool follows = scanner->end - scanner->at >= 6 && scanner->at[0] == '\\' && scanner->at[1] == 'u';
    if (!follows) fail_at(scanner, "the second half of a surrogate pair");
    scanner->at += 2;
    uint32_t low = read_hex(scanner);
    if (low < 0xDC00 || low > 0xDFFF) fail_at(scanner, "the second half of a surrogate pair");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  } else if (code >= 0xDC00 && code < 0xE000) {
    fail_at(scanner, "the first half of a surrogate pair");
  }
  return put_code(out, code);
}

/* The text of a JSON string. */
static Part read_string(Scanner *scanner) {
  if (!take(scanner, '"')) fail_at(scanner, "a text in quotes");
  char *out = reserve((size_t)(scanner->end - scanner->at) + 4, 1);
  size_t size = 0;
  while (scanner->at < scanner->end && *scanner->at != '"') {
    unsigned char byte = (unsigned char)*scanner->at++;
    if (byte < 0x20) fail_at(scanner, "control characters to be escaped");
    if (byte == '\\') {
      size += read_escape(scanner, out + size);
    } else {
      out[size++] = (char)byte;
    }
  }
  if (scanner->at == scanner->end) fail_at(scanner, "a text to end with a quote");
  scanner->at++;
  return (Part){out, size};
}

static void skip_value(Scanner *scanner, int depth) {
  if (depth > 64) fail_at(scanner, "at most 64 lists or objects inside each other");
  skip_space(scanner);
  if (scanner->at == scanner->end) fail_at(scanner, "a value");
  if (*scanner->at == '"') {
    free((void *)(uintptr_t)read_string(scanner).data);
  } else if (take(scanner, '{')) {
    if (take(scanner, '}')) return;
    do {
      free((void *)(uintptr_t)read_string(scanner).data);
      if (!take(scanner, ':')) fail_at(scanner, "':'");
      skip_value(scanner, depth + 1);
    } while (take(scanner, ','));
    if (!take(scanner, '}')) fail_at(scanner, "'}'");
  } else if (take(scanner, '[')) {
    if (take(scanner, ']')) return;
    do skip_value(scanner, depth + 1);
    while (take(scanner, ','));
    if (!take(scanner, ']')) fail_at(scanner, "']'");
  } else {
    const char *start = scanner->at;
    while (scanner->at < scanner->end && strchr("+-.0123456789aeflnrstuE", *scanner->at) != NULL && *scanner->at != '\0') scanner->at++;
    static const char *const words[] = {"true", "false", "null"};
    size_t size = (size_t)(scanner->at - start);
    bool fits = size > 0 && (*start == '-' || (*start >= '0' && *start <= '9'));
    for (int i = 0; i < 3; i++) fits |= is_name((Part){start, size}, words[i]);
    if (!fits) fail_at(scanner, "a value");
  }
}

static Fields read_object(Scanner *scanner) {
  Fields fields = {NULL, 0};
  if (!take(scanner, '{')) fail_at(scanner, "a JSON object");
  if (take(scanner, '}')) return fields;
  do {
    Field field = {.name = read_string(scanner)};
    if (!take(scanner, ':')) fail_at(scanner, "':'");
    skip_space(scanner);
    field.value.data = scanner->at;
    skip_value(scanner, 0);
    field.value.size = (size_t)(scanner->at - field.value.data);
    for (size_t i = 0; i < fields.count; i++) {
      Part name = fields.fields[i].name;
      if (name.size == field.name.size && memcmp(name.data, field.name.data, name.size) == 0) fail_at(scanner, "each key once");
    }
    add_field(&fields, field);
  } while (take(scanner, ','));
  if (!take(scanner, '}')) fail_at(scanner, "'}'");
  skip_space(scanner);
  if (scanner->at != scanner->end) fail_at(scanner, "nothing after the object");
  return fields;
}

/* The text of a JSON value; null is an empty one. */
static Part text_of(Part value, const Scanner *where) {
  Scanner scanner = {value.data, value.data + value.size, where->path, where->line};
  if (is_name(value, "null")) return (Part){"", 0};
  if (value.size == 0 || *value.data != '"') fail_at(where, "a text, or null for a blank one");
  return read_string(&scanner);
}

/* ---- rows ---- */

/* Appends JSON to a text that grows. */
static void append(char **to, size_t *size, const char *data, size_t more) {
  *to = grow(*to, *size + more + 1);
  memcpy(*to + *size, data, more);
  *size += more;
}

/* Other fields as JSON, without the braces. `value_of` gives a field's value as JSON. */
static void keep_fields(Text *text, const Fields *fields, size_t first, size_t second, Part (*value_of)(Part value)) {
  char *json = NULL;
  size_t size = 0;
  for (size_t i = 0; i < fields->count; i++) {
    const Field *field = &fields->fields[i];
    Part value = value_of(field->value);
    if (i == first || i == second) continue;
    if (is_name(field->name, "id")) {
      if (is_name(value, "null")) continue;
      text->id = value.data;
      text->id_size = value.size;
      continue;
    }
    char *name = json_text_of(field->name.data, field->name.size);
    if (size > 0) append(&json, &size, ", ", 2);
    append(&json, &size, name, strlen(name));
    append(&json, &size, ": ", 2);
    append(&json, &size, value.data, value.size);
    free(name);
  }
  text->fields = json;
  text->fields_size = size;
}

static void set_texts(Text *text, Part first, const Part *second) {
  text->text = first.data;
  text->size = is_blank(first.data, first.size) ? 0 : first.size;
  if (second == NULL) return;
  text->second = second->data;
  text->second_size = second->size;
}

static Part as_it_is(Part value) { return value; }

void read_json_lines(Texts *texts, const char *path, const char *column) {
  InputFile file = read_text_file(path);
  const char *at = file.data, *end = file.data + file.size;
  for (size_t line = 1; at < end; line++) {
    const char *stop_at = memchr(at, '\n', (size_t)(end - at));
    if (stop_at == NULL) stop_at = end;
    Scanner scanner = {at, stop_at, path, line};
    at = stop_at < end ? stop_at + 1 : end;
    if (is_blank(scanner.at, (size_t)(scanner.end - scanner.at))) continue;
    Fields fields = read_object(&scanner);
    size_t first = text_field(&fields, column, path, line), second = second_field(&fields);
    Text *text = add_text(texts, line, "texts");
    Part one = text_of(fields.fields[first].value, &scanner), other = {NULL, 0};
    if (second < fields.count) other = text_of(fields.fields[second].value, &scanner);
    set_texts(text, one, second < fields.count ? &other : NULL);
    keep_fields(text, &fields, first, second, as_it_is);
  }
  if (texts->count == 0) stop(EXIT_USAGE, "%s holds no texts", path);
}

/* ---- CSV ---- */

/* The next cell of a row, and whether it is the last one. In quotes, two quotes stand for one. */
static Part read_cell(Scanner *scanner, bool has_tabs, bool *is_last) {
  char separator = has_tabs ? '\t' : ',', *out = reserve((size_t)(scanner->end - scanner->at) + 1, 1);
  size_t size = 0;
  bool quoted = !has_tabs && scanner->at < scanner->end && *scanner->at == '"';
  scanner->at += quoted;
  for (bool open = quoted; scanner->at < scanner->end; scanner->at++) {
    char sign = *scanner->at;
    if (open && sign == '"') {
      bool doubled = scanner->end - scanner->at > 1 && scanner->at[1] == '"';
      open = doubled;
      scanner->at += doubled;
      if (!doubled) continue;
    } else if (!open && (sign == separator || sign == '\n')) {
      break;
    } else if (!open && quoted && sign != '\r') {
      fail_at(scanner, "a quoted cell to end with its quote");
    }
    if (open && scanner->end - scanner->at == 1) fail_at(scanner, "a quoted cell to end with a quote");
    if (sign == '\n') scanner->line++;
    if (open || sign != '\r') out[size++] = sign;
  }
  *is_last = scanner->at == scanner->end || *scanner->at == '\n';
  if (scanner->at < scanner->end) scanner->at++;
  return (Part){out, size};
}

static Part quoted_value(Part value) {
  char *json = json_text_of(value.data, value.size);
  return (Part){json, strlen(json)};
}

/* Which of two columns of one name a text comes from is not to be guessed. */
static void check_names(const Fields *header, const char *path) {
  for (size_t i = 0; i < header->count; i++) {
    Part name = header->fields[i].name;
    for (size_t k = 0; k < i; k++) {
      Part other = header->fields[k].name;
      if (other.size != name.size || memcmp(other.data, name.data, name.size) != 0) continue;
      stop(EXIT_FAULT, "%s has two columns '%.*s'; keep one of them", path, (int)(name.size < 60 ? name.size : 60), name.data);
    }
  }
}

void read_csv(Texts *texts, const char *path, const char *column) {
  InputFile file = read_text_file(path);
  size_t length = strlen(path), line = 1;
  bool has_tabs = length >= 4 && strcmp(path + length - 4, ".tsv") == 0;
  Scanner scanner = {file.data, file.data + file.size, path, 1};
  Fields header = {NULL, 0};
  for (bool is_last = file.size == 0; !is_last;) add_field(&header, (Field){read_cell(&scanner, has_tabs, &is_last), {NULL, 0}});
  check_names(&header, path);
  while (scanner.at < scanner.end) {
    Fields row = {reserve(header.count, sizeof *row.fields), 0};
    scanner.line = ++line;
    for (bool is_last = false; !is_last; row.count++) {
      Part value = read_cell(&scanner, has_tabs, &is_last);
      if (row.count < header.count) row.fields[row.count] = (Field){header.fields[row.count].name, value};
    }
    if (row.count == 1 && row.fields[0].value.size == 0 && header.count > 1) continue; /* a blank line */
    if (row.count != header.count) {
      stop(EXIT_FAULT, "%s, row %zu should have %zu columns, found %zu", path, line, header.count, row.count);
    }
    size_t first = text_field(&row, column, path, line), second = second_field(&row);
    Text *text = add_text(texts, line, "texts");
    set_texts(text, row.fields[first].value, second < row.count ? &row.fields[second].value : NULL);
    keep_fields(text, &row, first, second, quoted_value);
  }
  if (texts->count == 0) stop(EXIT_USAGE, "%s holds no texts", path);
}
