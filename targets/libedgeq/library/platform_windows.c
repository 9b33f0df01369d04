#include "platform.h"

#if defined(_WIN32)

#include <errno.h>
#include <stdlib.h>
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

/* ---- files ---- */

static void set_errno(void) {
  switch (GetLastError()) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_INVALID_NAME:
    case ERROR_BAD_PATHNAME:
      errno = ENOENT;
      break;
    case ERROR_ACCESS_DENIED:
    case ERROR_SHARING_VIOLATION:
      errno = EACCES;
      break;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_COMMITMENT_LIMIT:
      errno = ENOMEM;
      break;
    default:
      errno = EIO;
  }
}

/* A path in UTF-8 as Windows wants it, to be given back with free(); NULL if it is none. */
static wchar_t *wide_path(const char *path) {
  int length = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, NULL, 0);
  wchar_t *wide = length > 0 ? malloc((size_t)length * sizeof *wide) : NULL;
  if (wide != NULL && MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, length) > 0) return wide;
  free(wide);
  errno = length > 0 ? ENOMEM : ENOENT;
  return NULL;
}

static DWORD attributes_of(const char *path) {
  wchar_t *wide = wide_path(path);
  DWORD attributes = wide != NULL ? GetFileAttributesW(wide) : INVALID_FILE_ATTRIBUTES;
  if (wide != NULL && attributes == INVALID_FILE_ATTRIBUTES) set_errno();
  free(wide);
  return attributes;
}

Found look_at(const char *path) {
  DWORD attributes = attributes_of(path);
  if (attributes == INVALID_FILE_ATTRIBUTES) return FOUND_NOTHING;
  return (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0 ? FOUND_FOLDER : FOUND_FILE;
}

/* Files are opened by their whole path. */
Folder open_folder(const char *path) { return look_at(path) == FOUND_FOLDER ? 0 : NO_FOLDER; }

void close_folder(Folder folder) { (void)folder; }

static MapResult map_open_file(HANDLE file, size_t most, Mapping *mapping, uintmax_t *size) {
  LARGE_INTEGER found;
  if (GetFileType(file) != FILE_TYPE_DISK || !GetFileSizeEx(file, &found)) return FILE_NOT_REGULAR;
  *size = (uintmax_t)found.QuadPart;
  *mapping = (Mapping){NULL, 0};
  if (*size > most) return FILE_TOO_LARGE;
  if (*size == 0) return FILE_MAPPED;
  HANDLE section = CreateFileMappingW(file, NULL, PAGE_READONLY, 0, 0, NULL);
  const void *data = section != NULL ? MapViewOfFile(section, FILE_MAP_READ, 0, 0, (SIZE_T)*size) : NULL;
  if (data == NULL) set_errno();
  if (section != NULL) CloseHandle(section); /* the view keeps it */
  if (data == NULL) return FILE_NOT_MAPPED;
  *mapping = (Mapping){data, (size_t)*size};
  return FILE_MAPPED;
}

MapResult map_whole_file(Folder folder, const char *name, const char *path, size_t most, Mapping *mapping,
                         uintmax_t *size) {
  (void)folder, (void)name;
  wchar_t *wide = wide_path(path);
  if (wide == NULL) return FILE_NOT_OPENED;
  HANDLE file = CreateFileW(wide, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL, OPEN_EXISTING,
                            FILE_ATTRIBUTE_NORMAL, NULL);
  if (file == INVALID_HANDLE_VALUE) set_errno();
  free(wide);
  if (file == INVALID_HANDLE_VALUE) return look_at(path) == FOUND_FOLDER ? FILE_NOT_REGULAR : FILE_NOT_OPENED;
  MapResult result = map_open_file(file, most, mapping, size);
  CloseHandle(file);
  return result;
}

void unmap(Mapping mapping) {
  if (mapping.size > 0) UnmapViewOfFile(mapping.data);
}

void forget_pages(Mapping mapping) {
  /* Of pages that nobody has locked this takes them out of the working set; they stay in the system's cache. */
  if (mapping.size > 0) VirtualUnlock((void *)(uintptr_t)mapping.data, mapping.size);
}

/* ---- memory that code runs in ---- */

size_t page_size(void) {
  SYSTEM_INFO info;
  GetSystemInfo(&info);
  return info.dwPageSize;
}

char *new_pages(size_t bytes) { return VirtualAlloc(NULL, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE); }

void free_pages(char *pages, size_t bytes) {
  (void)bytes;
  VirtualFree(pages, 0, MEM_RELEASE);
}

bool protect_pages(char *pages, size_t bytes, bool executable) {
  DWORD before;
  if (executable) FlushInstructionCache(GetCurrentProcess(), pages, bytes);
  return VirtualProtect(pages, bytes, executable ? PAGE_EXECUTE_READ : PAGE_READONLY, &before) != 0;
}

/* ---- threads and processors ---- */

static DWORD WINAPI run_thread(void *argument) {
  Thread *thread = argument;
  thread->run(thread->argument);
  return 0;
}

bool thread_start(Thread *thread, void *(*run)(void *argument), void *argument) {
  thread->run = run;
  thread->argument = argument;
  thread->handle = CreateThread(NULL, 0, run_thread, thread, 0, NULL);
  return thread->handle != NULL;
}

void thread_join(Thread *thread) {
  WaitForSingleObject(thread->handle, INFINITE);
  CloseHandle(thread->handle);
}

void thread_bind(Thread *thread, const int32_t *processors, int32_t count) {
  DWORD_PTR cores = 0; /* of the process's group, at most 64 */
  for (int32_t i = 0; i < count; i++) {
    if (processors[i] >= 0 && processors[i] < (int32_t)(8 * sizeof cores)) cores |= (DWORD_PTR)1 << processors[i];
  }
  if (cores != 0) SetThreadAffinityMask(thread->handle, cores);
}

/* Locks and conditions of Windows are a pointer, and need no end. */
_Static_assert(sizeof(SRWLOCK) == sizeof(Lock) && sizeof(CONDITION_VARIABLE) == sizeof(Condition), "a pointer");

bool lock_make(Lock *lock) {
  InitializeSRWLock((SRWLOCK *)lock);
  return true;
}

void lock_end(Lock *lock) { (void)lock; }

void lock_take(Lock *lock) { AcquireSRWLockExclusive((SRWLOCK *)lock); }

void lock_give(Lock *lock) { ReleaseSRWLockExclusive((SRWLOCK *)lock); }

bool condition_make(Condition *condition) {
  InitializeConditionVariable((CONDITION_VARIABLE *)condition);
  return true;
}

void condition_end(Condition *condition) { (void)condition; }

void condition_wait(Condition *condition, Lock *lock) {
  SleepConditionVariableSRW((CONDITION_VARIABLE *)condition, (SRWLOCK *)lock, INFINITE, 0);
}

void condition_wake_one(Condition *condition) { WakeConditionVariable((CONDITION_VARIABLE *)condition); }

void condition_wake_all(Condition *condition) { WakeAllConditionVariable((CONDITION_VARIABLE *)condition); }

int available_cores(void) {
  DWORD_PTR process = 0, system = 0;
  int cores = 0;
  if (!GetProcessAffinityMask(GetCurrentProcess(), &process, &system)) return 1;
  for (; process != 0; process &= process - 1) cores++;
  return cores > 0 ? cores : 1;
}

bool system_names_flag(const char *flag) {
  (void)flag;
  return false;
}

double now(void) {
  LARGE_INTEGER count, per_second;
  QueryPerformanceCounter(&count);
  QueryPerformanceFrequency(&per_second);
  return (double)count.QuadPart / (double)per_second.QuadPart;
}

long this_process(void) { return (long)GetCurrentProcessId(); }

#endif
