/* Texts from JSON lines and CSV tables, with their ids and other fields. */
#ifndef EDGEQ_TABLE_FILES_H
#define EDGEQ_TABLE_FILES_H

#include "texts.h"

/* One JSON object a line; blank lines are skipped. The text is under the key `column`, or if that is NULL under `text`,
 * `sentence` or `question`; its second, if there is one, under `text_pair` or `context`. */
void read_json_lines(Texts *texts, const char *path, const char *column);

/* A table with a header and the same names of columns; with tabs and without quotes if its name ends in .tsv. */
void read_csv(Texts *texts, const char *path, const char *column);

#endif
