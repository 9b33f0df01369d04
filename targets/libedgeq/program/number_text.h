/* Numbers as text: what printf("%.9g") writes, which is enough to read a float32 back. */
#ifndef EDGEQ_NUMBER_TEXT_H
#define EDGEQ_NUMBER_TEXT_H

#include <stddef.h>

enum { NUMBER_SIZE = 32 };

/* Writes the text, with an end mark; returns how long it is. Several times as fast as printf for the values of embeddings,
 * which are floats of usual sizes. */
size_t number_text(double value, char text[NUMBER_SIZE]);

#endif
