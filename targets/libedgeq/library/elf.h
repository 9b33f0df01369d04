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

/* Loads the `size` bytes at `data` (aligned to 8), until it is given back with release(). `file` names them in messages.
 * Everything that the code asks for must be among the `given` symbols; a symbol of theirs that the code defines as data
 * (a pointer) gets the address instead. Fails if it is no code for this processor, or is damaged. */
Elf *elf_load(Memory *memory, const char *data, size_t size, const char *file, const Symbol *given, size_t given_count);

/* Address of a symbol that the code defines, or NULL. */
void *elf_find(const Elf *elf, const char *name);

/* Where address 0 of the file lies. */
const void *elf_start(const Elf *elf);

#endif
