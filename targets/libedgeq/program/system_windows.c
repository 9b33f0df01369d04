#include "system.h"

#if defined(_WIN32)

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <stdlib.h>
#include <sys/stat.h>

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#define PSAPI_VERSION 2 /* its functions are in kernel32 */
#include <psapi.h>
#include <shellapi.h>

#include "stop.h"

/* Never given back: arguments and paths live as long as the program. */
static char *to_utf8(const wchar_t *wide) {
  int length = WideCharToMultiByte(CP_UTF8, 0, wide, -1, NULL, 0, NULL, NULL);
  char *text = reserve((size_t)length + 1, 1);
  WideCharToMultiByte(CP_UTF8, 0, wide, -1, text, length, NULL, NULL);
  return text;
}

static wchar_t *to_wide(const char *text) {
  int length = MultiByteToWideChar(CP_UTF8, 0, text, -1, NULL, 0);
  wchar_t *wide = reserve((size_t)length + 1, sizeof *wide);
  MultiByteToWideChar(CP_UTF8, 0, text, -1, wide, length);
  return wide;
}

char **program_arguments(int *count, char **arguments) {
  wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), count);
  _setmode(_fileno(stdout), _O_BINARY);
  _setmode(_fileno(stderr), _O_BINARY);
  SetConsoleOutputCP(CP_UTF8);
  if (wide == NULL) return arguments;
  char **texts = reserve((size_t)*count + 1, sizeof *texts);
  for (int i = 0; i < *count; i++) texts[i] = to_utf8(wide[i]);
  LocalFree(wide);
  return texts;
}

FILE *open_file(const char *path, const char *mode) {
  wchar_t *wide_path = to_wide(path), *wide_mode = to_wide(mode);
  FILE *file = _wfopen(wide_path, wide_mode);
  DWORD found = file == NULL ? GetFileAttributesW(wide_path) : INVALID_FILE_ATTRIBUTES;
  /* It calls a folder a matter of permission. */
  if (found != INVALID_FILE_ATTRIBUTES && (found & FILE_ATTRIBUTE_DIRECTORY) != 0) errno = EISDIR;
  free(wide_path);
  free(wide_mode);
  return file;
}

intmax_t regular_file_bytes(FILE *file) {
  struct _stat64 status;
  if (_fstat64(_fileno(file), &status) != 0 || (status.st_mode & _S_IFMT) != _S_IFREG) return -1;
  return (intmax_t)status.st_size;
}

bool rename_file(const char *from, const char *to) {
  wchar_t *old = to_wide(from), *name = to_wide(to);
  bool done = MoveFileExW(old, name, MOVEFILE_REPLACE_EXISTING) != 0;
  if (!done) errno = EACCES;
  free(old);
  free(name);
  return done;
}

const char *program_path(void) {
  wchar_t path[4096];
  DWORD length = GetModuleFileNameW(NULL, path, sizeof path / sizeof *path);
  return length > 0 && length < sizeof path / sizeof *path ? to_utf8(path) : NULL;
}

double now(void) {
  LARGE_INTEGER count, per_second;
  QueryPerformanceCounter(&count);
  QueryPerformanceFrequency(&per_second);
  return (double)count.QuadPart / (double)per_second.QuadPart;
}

long long peak_bytes(void) {
  PROCESS_MEMORY_COUNTERS counters = {.cb = sizeof counters};
  if (!GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters)) return 0;
  return (long long)counters.PeakWorkingSetSize;
}

#endif
