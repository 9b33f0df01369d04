/* Where texts come from: the command line, lines of texts, pairs or token ids, JSON lines and CSV tables. */
#ifndef EDGEQ_TEXT_SOURCES_H
#define EDGEQ_TEXT_SOURCES_H

#include "options.h"
#include "texts.h"

/* The texts that the options name; none for other jobs. */
Texts read_texts(const Options *options);

#endif
