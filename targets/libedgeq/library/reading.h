/* Texts that a caller gives, as rows of tokens that the model takes. */
#ifndef EDGEQ_READING_H
#define EDGEQ_READING_H

#include "encoding.h"
#include "rules.h"
#include "session.h"

/* Texts of a call and how they are to be read. */
typedef struct {
  const edgeq_session *session;
  edgeq_text_options options;
  const char *prompt;   /* is put before every text */
  size_t prompt_tokens; /* at the beginning of a row, which pooling leaves out */
  Framing framing;
  bool refuses_long;
} TextReader;

#define QUARTER_OF_A_ROW SIZE_MAX /* for `overlap` */

/* What sentences call text `index` of a call. */
const char *text_name(Memory *memory, const TextReader *reader, const edgeq_text *text, size_t index);

/* Fails if a text is no UTF-8 or holds no word. */
void check_text(const Memory *memory, const edgeq_text *text, const char *name);

/* How the options say that texts are read; `options` may be NULL. `overlap` is the task's own. */
TextReader text_reader(Memory *memory, const edgeq_session *session, const edgeq_text_options *options, size_t overlap,
                   bool is_traced);

/* The same for tasks that speak of places in texts as they are given, which prompts would move. */
TextReader place_reader(Memory *memory, const edgeq_session *session, const edgeq_text_options *options, size_t overlap);

/* Rows of a text and its second, which may be NULL, at least one token each. */
Rows read_text(Memory *memory, const TextReader *reader, const edgeq_text *text, const edgeq_text *second, const char *name);

/* The same; fails if the model does not take one of the rows. */
Rows read_checked(Memory *memory, const TextReader *reader, const edgeq_text *text, const edgeq_text *second,
                  const char *name);

/* Token ids of all texts, each one row, for models that generate text; fails if the model does not take one of them. */
Tokens *checked_texts(Memory *memory, const edgeq_session *session, const edgeq_text *texts, size_t count);

/* The second of text `index`, NULL if it has none. */
const edgeq_text *second_of(const TextReader *reader, size_t index);

/* Says how a text was read. */
edgeq_reading reading_of(const Rows *rows);

#endif
