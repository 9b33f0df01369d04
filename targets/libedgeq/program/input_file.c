#include "input_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stop.h"

InputFile read_file(const char *path) {
  struct stat status;
  InputFile file = {NULL, 0};
  int handle = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is not waited for */
  if (handle < 0) stop(EXIT_USAGE, "cannot open %s: %s", path, strerror(errno));
  if (fstat(handle, &status) != 0 || !S_ISREG(status.st_mode)) stop(EXIT_USAGE, "%s is not a file", path);
  if ((uintmax_t)status.st_size >= PTRDIFF_MAX) stop(EXIT_USAGE, "%s is too large for the memory of this machine", path);
  size_t wanted = (size_t)status.st_size;
  file.data = reserve(wanted + 1, 1);
  while (file.size < wanted) {
    ssize_t count = read(handle, file.data + file.size, wanted - file.size);
    if (count < 0) stop(EXIT_USAGE, "cannot read %s: %s", path, strerror(errno));
    if (count == 0) break; /* it became shorter meanwhile */
    file.size += (size_t)count;
  }
  close(handle);
  return file;
}
