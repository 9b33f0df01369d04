#include "platform.h"

#if !defined(_WIN32)

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- files ---- */

Found look_at(const char *path) {
  struct stat found;
  if (stat(path, &found) != 0) return FOUND_NOTHING;
  return S_ISDIR(found.st_mode) ? FOUND_FOLDER : FOUND_FILE;
}

Folder open_folder(const char *path) { return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); }

void close_folder(Folder folder) { close(folder); }

static MapResult map_open_file(int file, size_t most, Mapping *mapping, uintmax_t *size) {
  struct stat found;
  if (fstat(file, &found) != 0 || !S_ISREG(found.st_mode)) return FILE_NOT_REGULAR;
  *size = (uintmax_t)found.st_size;
  *mapping = (Mapping){NULL, 0};
  if (*size > most) return FILE_TOO_LARGE;
  if (*size == 0) return FILE_MAPPED;
  void *data = mmap(NULL, (size_t)*size, PROT_READ, MAP_PRIVATE, file, 0);
  if (data == MAP_FAILED) return FILE_NOT_MAPPED;
  *mapping = (Mapping){data, (size_t)*size};
  return FILE_MAPPED;
}

MapResult map_whole_file(Folder folder, const char *name, const char *path, size_t most, Mapping *mapping,
                         uintmax_t *size) {
  (void)path;
  int file = openat(folder == NO_FOLDER ? AT_FDCWD : folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file < 0) return FILE_NOT_OPENED;
  MapResult result = map_open_file(file, most, mapping, size);
  close(file);
  return result;
}

void unmap(Mapping mapping) {
  if (mapping.size > 0) munmap((void *)(uintptr_t)mapping.data, mapping.size);
}

void forget_pages(Mapping mapping) {
  /* They stay in the system's cache, and come back when they are read. */
  if (mapping.size > 0) madvise((void *)(uintptr_t)mapping.data, mapping.size, MADV_DONTNEED);
}

/* ---- memory that code runs in ---- */

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

/* ---- threads ---- */

bool thread_start(Thread *thread, void *(*run)(void *argument), void *argument) {
  return pthread_create(thread, NULL, run, argument) == 0;
}

void thread_join(Thread *thread) { pthread_join(*thread, NULL); }

bool lock_make(Lock *lock) { return pthread_mutex_init(lock, NULL) == 0; }

void lock_end(Lock *lock) { pthread_mutex_destroy(lock); }

void lock_take(Lock *lock) { pthread_mutex_lock(lock); }

void lock_give(Lock *lock) { pthread_mutex_unlock(lock); }

bool condition_make(Condition *condition) { return pthread_cond_init(condition, NULL) == 0; }

void condition_end(Condition *condition) { pthread_cond_destroy(condition); }

void condition_wait(Condition *condition, Lock *lock) { pthread_cond_wait(condition, lock); }

void condition_wake_one(Condition *condition) { pthread_cond_signal(condition); }

void condition_wake_all(Condition *condition) { pthread_cond_broadcast(condition); }

double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

long this_process(void) { return (long)getpid(); }

#endif
