/* All that libedgeq asks of an operating system. platform_posix.c implements it, with what Linux and macOS have of their
 * own in platform_linux.c and platform_macos.c; platform_windows.c does for Windows. Every one of these files may be given
 * to every compiler: it is empty on other systems.
 *
 * Functions that fail set errno. */
#ifndef EDGEQ_PLATFORM_H
#define EDGEQ_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#if !defined(_WIN32)
#include <pthread.h>
#endif

#include "names.h"

/* Whether code can be loaded from a bundle: otherwise kernels are linked in. */
#if defined(__linux__)
#define LOADS_CODE 1
#else
#define LOADS_CODE 0
#endif

/* ---- files ---- */

typedef struct {
  const char *data; /* NULL only if `size` is 0 */
  size_t size;
} Mapping;

typedef enum { FOUND_NOTHING, FOUND_FOLDER, FOUND_FILE } Found;

/* What lies at a path; FOUND_FILE also stands for what is neither. */
Found look_at(const char *path);

/* An open folder: its files belong together, also if another folder takes its name meanwhile. */
typedef int Folder;
enum { NO_FOLDER = -1 };

/* NO_FOLDER if it cannot be opened. */
Folder open_folder(const char *path);
void close_folder(Folder folder);

typedef enum { FILE_MAPPED, FILE_NOT_OPENED, FILE_NOT_REGULAR, FILE_TOO_LARGE, FILE_NOT_MAPPED } MapResult;

/* Maps `name` below `folder`, or with NO_FOLDER the path `name`, for reading. `path` is the whole path, for systems that
 * have no open folders. Only a regular file of at most `most` bytes is mapped; a pipe is not waited for. `*size` is what
 * a file that is too large has. */
MapResult map_whole_file(Folder folder, const char *name, const char *path, size_t most, Mapping *mapping,
                         uintmax_t *size);
void unmap(Mapping mapping);

/* Takes the pages that were read out of this process's memory until they are read again. */
void forget_pages(Mapping mapping);

/* ---- memory that code runs in ---- */

size_t page_size(void);

/* Whole pages of zeros, or NULL. */
char *new_pages(size_t bytes);
void free_pages(char *pages, size_t bytes);

/* Makes pages read-only, or read-only and executable, which then also holds for the instructions that processors have
 * fetched already. Returns false if the system does not allow it. */
bool protect_pages(char *pages, size_t bytes, bool executable);

/* ---- threads and processors ---- */

#if defined(_WIN32)
typedef struct {
  void *handle;
  void *(*run)(void *argument);
  void *argument;
} Thread;
typedef struct {
  void *state;
} Lock, Condition;
#else
typedef pthread_t Thread;
typedef pthread_mutex_t Lock;
typedef pthread_cond_t Condition;
#endif

/* Starts a thread; `thread` stays where it is until it is joined. Returns false if the system gives none. */
bool thread_start(Thread *thread, void *(*run)(void *argument), void *argument);
void thread_join(Thread *thread);

/* Lets a thread run on these processors only. A system that does not allow it changes nothing but the speed. */
void thread_bind(Thread *thread, const int32_t *processors, int32_t count);

bool lock_make(Lock *lock);
void lock_end(Lock *lock);
void lock_take(Lock *lock);
void lock_give(Lock *lock);

bool condition_make(Condition *condition);
void condition_end(Condition *condition);
void condition_wait(Condition *condition, Lock *lock);
void condition_wake_one(Condition *condition);
void condition_wake_all(Condition *condition);

/* Cores that this process may use: those that it may run on, and no more than its quota keeps busy. */
int available_cores(void);

/* Whether the system says that the processor has `flag`, named as in Linux's /proc/cpuinfo: for processors that do not
 * say so themselves. */
bool system_names_flag(const char *flag);

/* Seconds since some moment, which only go forward. */
double now(void);

/* A number of this process, which the child of a fork does not share. */
long this_process(void);

#endif
