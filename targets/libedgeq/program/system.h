/* What edgeq-run asks of the operating system beside the C library: system_posix.c and system_windows.c. Paths and
 * arguments are UTF-8. */
#ifndef EDGEQ_SYSTEM_H
#define EDGEQ_SYSTEM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* The program's arguments in UTF-8; also lets it print bytes as they are. */
char **program_arguments(int *count, char **arguments);

/* Opens a file, like fopen; one to be read is not waited for if it is a pipe. NULL and errno if it cannot be opened. */
FILE *open_file(const char *path, const char *mode);

/* Bytes of an open file, or -1 if it is no regular one. */
intmax_t regular_file_bytes(FILE *file);

/* Gives a file another name, which it takes from the file that had it. */
bool rename_file(const char *from, const char *to);

/* Where this program lies, or NULL if the system does not say. */
const char *program_path(void);

/* Seconds since some moment, which only go forward. */
double now(void);

/* Most bytes of memory that this process ever had, or 0 where the system does not say. */
long long peak_bytes(void);

#endif
