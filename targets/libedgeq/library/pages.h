/* Memory that code runs in. */
#ifndef EDGEQ_PAGES_H
#define EDGEQ_PAGES_H

#include <stdbool.h>
#include <stddef.h>

#include "names.h"

size_t page_size(void);

/* Whole pages of zeros, or NULL. */
char *new_pages(size_t bytes);
void free_pages(char *pages, size_t bytes);

/* Makes pages read-only, or read-only and executable, which then also holds for the instructions that processors have
 * fetched already. Returns false if the system does not allow it. */
bool protect_pages(char *pages, size_t bytes, bool executable);

#endif
