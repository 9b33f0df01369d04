/* Compiled code in an ELF shared object, loaded from memory: no file is needed, nor a dynamic linker. */
#ifndef EDGEQ_ELF_H
#define EDGEQ_ELF_H

#include "memory.h"

/* What the code may ask for by name. */
typedef struct {
  const char *name;
  void *address;
} Symbol;

typedef struct Elf Elf;

/* A copy of the `size` bytes of a file, until it is given back with release(). */
Elf *elf_copy(Memory *memory, const char *data, size_t size);

/* Makes a copy fit to run where it lies; to be called once. `file` names it in messages. Everything that the code asks for
 * must be among the `given` symbols; a symbol of theirs that the code defines as data (a pointer) gets the address instead.
 * Fails if it is no code for this processor, or is damaged. */
void elf_load(Memory *memory, Elf *elf, const char *file, const Symbol *given, size_t given_count);

/* Address of a symbol that the code defines, or NULL. */
void *elf_find(const Elf *elf, const char *name);

/* Where the copy lies; then, where address 0 of the loaded code does. */
const char *elf_start(const Elf *elf);

#endif
