#include "pages.h"

#include <sys/mman.h>
#include <unistd.h>

size_t page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

char *new_pages(size_t bytes) {
  void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return pages == MAP_FAILED ? NULL : pages;
}

void free_pages(char *pages, size_t bytes) { munmap(pages, bytes); }

bool protect_pages(char *pages, size_t bytes, bool executable) {
  if (executable) __builtin___clear_cache(pages, pages + bytes);
  return mprotect(pages, bytes, executable ? PROT_READ | PROT_EXEC : PROT_READ) == 0;
}
