#include "elf.h"

#include "platform.h"

#if LOADS_CODE

#include <elf.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* The C library's <elf.h> has the structures for both sizes of addresses. */
#if UINTPTR_MAX > UINT32_MAX
typedef Elf64_Ehdr Header;
typedef Elf64_Phdr Segment;
typedef Elf64_Dyn Dynamic;
typedef Elf64_Sym SymbolEntry;
typedef Elf64_Rela Relocation;
enum { CLASS = ELFCLASS64 };
#define RELOCATION_SYMBOL(info) ELF64_R_SYM(info)
#define RELOCATION_TYPE(info) ELF64_R_TYPE(info)
#else
typedef Elf32_Ehdr Header;
typedef Elf32_Phdr Segment;
typedef Elf32_Dyn Dynamic;
typedef Elf32_Sym SymbolEntry;
typedef Elf32_Rela Relocation;
enum { CLASS = ELFCLASS32 };
#define RELOCATION_SYMBOL(info) ELF32_R_SYM(info)
#define RELOCATION_TYPE(info) ELF32_R_TYPE(info)
#endif

#if defined(__x86_64__)
enum { MACHINE = EM_X86_64, RELATIVE = R_X86_64_RELATIVE, ABSOLUTE = R_X86_64_64, GLOBAL = R_X86_64_GLOB_DAT,
       JUMP = R_X86_64_JUMP_SLOT };
#elif defined(__aarch64__)
enum { MACHINE = EM_AARCH64, RELATIVE = R_AARCH64_RELATIVE, ABSOLUTE = R_AARCH64_ABS64, GLOBAL = R_AARCH64_GLOB_DAT,
       JUMP = R_AARCH64_JUMP_SLOT };
#elif defined(__arm__)
enum { MACHINE = EM_ARM, RELATIVE = R_ARM_RELATIVE, ABSOLUTE = R_ARM_ABS32, GLOBAL = R_ARM_GLOB_DAT,
       JUMP = R_ARM_JUMP_SLOT };
#elif defined(__riscv) && __riscv_xlen == 64
enum { MACHINE = EM_RISCV, RELATIVE = R_RISCV_RELATIVE, ABSOLUTE = R_RISCV_64, GLOBAL = -1, JUMP = R_RISCV_JUMP_SLOT };
#else
enum { MACHINE = -1, RELATIVE = -1, ABSOLUTE = -1, GLOBAL = -1, JUMP = -1 };
#endif

enum { MOST_PAGES = 1 << 15, MOST_SEGMENTS = 16, SMALLEST_RELOCATION = 2 * sizeof(uintptr_t) };
/* What segments move up by, each by some pages: never touched, these take no memory. */
enum { ROOM = 1 << 20 };

struct Elf {
  char *pages;  /* the file, then the loaded code, from its address 0 on */
  size_t bytes; /* of pages */
  size_t size;  /* of what was put there */
  const SymbolEntry *symbols;
  size_t symbol_count;
  const char *names;
  size_t names_size;
};

typedef struct {
  Memory *memory;
  Elf *elf;
  const char *file;
  size_t page, file_size; /* tables of symbols have no more entries than the file has room for, whatever it says of memory */
  Segment segments[MOST_SEGMENTS]; /* those that are loaded, and others */
  size_t segment_count;
  uintptr_t table[DT_NUM]; /* of the dynamic section */
  uintptr_t gnu_hash;
  const Symbol *given;
  size_t given_count;
} Loader;

static _Noreturn void refuse(const Loader *loader, const char *reason) {
  fail(loader->memory, EDGEQ_DAMAGED, "%s cannot be loaded: %s; copy or compile the bundle again", loader->file, reason);
}

static void check(const Loader *loader, bool fits, const char *reason) {
  if (!fits) refuse(loader, reason);
}

static void unload(void *elf) {
  Elf *loaded = elf;
  if (loaded->pages != NULL) free_pages(loaded->pages, loaded->bytes);
}

/* `bytes` bytes of loaded code at an address of the file; all of it is readable. */
static char *loaded(const Loader *loader, uintptr_t address, size_t bytes) {
  bool fits = address <= loader->elf->size && bytes <= loader->elf->size - address;
  check(loader, fits, "an address lies outside of it");
  return loader->elf->pages + address;
}

static void read_header(Loader *loader) {
  static const unsigned char magic[] = {0x7F, 'E', 'L', 'F', CLASS, ELFDATA2LSB};
  const Elf *elf = loader->elf;
  Header header;
  check(loader, elf->size >= sizeof header && memcmp(elf->pages, magic, sizeof magic) == 0,
        "it is no ELF code for this size of addresses");
  memcpy(&header, elf->pages, sizeof header);
  check(loader, header.e_type == ET_DYN, "it is no shared object");
  if (header.e_machine != MACHINE) {
    fail(loader->memory, EDGEQ_UNSUPPORTED, "%s is code for another processor; compile the bundle for this one",
         loader->file);
  }
  bool fits = header.e_phentsize == sizeof(Segment) && header.e_phoff <= elf->size &&
              header.e_phnum <= (elf->size - header.e_phoff) / sizeof(Segment) && header.e_phnum <= MOST_SEGMENTS;
  check(loader, fits, "its segments lie outside of it, or are too many");
  loader->segment_count = header.e_phnum;
  memcpy(loader->segments, elf->pages + header.e_phoff, header.e_phnum * sizeof(Segment));
}

/* Returns where the last segment ends. Each begins behind the one before it, in the file and in memory, and no earlier in
 * memory than in the file: so they can be moved to their places, the last one first. */
static size_t check_segments(const Loader *loader) {
  size_t size = loader->elf->size, most = loader->page * MOST_PAGES, end = 0, end_in_file = 0;
  for (size_t i = 0; i < loader->segment_count; i++) {
    const Segment *segment = &loader->segments[i];
    check(loader, segment->p_type != PT_TLS && segment->p_type != PT_INTERP, "it needs variables of threads");
    check(loader, segment->p_type != PT_GNU_STACK || !(segment->p_flags & PF_X), "it wants to execute its stack");
    if (segment->p_type != PT_LOAD) continue;
    check(loader, !(segment->p_flags & PF_W) || !(segment->p_flags & PF_X), "it wants to change its instructions");
    bool fits = segment->p_offset <= size && segment->p_filesz <= size - segment->p_offset &&
                segment->p_memsz >= segment->p_filesz && segment->p_vaddr <= most && segment->p_memsz <= most &&
                segment->p_offset >= end_in_file && segment->p_vaddr >= end && segment->p_vaddr >= segment->p_offset;
    check(loader, fits, "a segment lies outside of it, or before another");
    end = segment->p_vaddr + segment->p_memsz;
    end_in_file = segment->p_offset + segment->p_filesz;
  }
  check(loader, end > 0, "it holds no code");
  return (end + loader->page - 1) / loader->page * loader->page;
}

static char *new_room(Memory *memory, size_t bytes) {
  char *pages = new_pages(bytes);
  if (pages == NULL) fail(memory, EDGEQ_NO_MEMORY, "out of memory (%zu bytes of code)", bytes);
  return pages;
}

/* Moves the segments to where they belong, and leaves zeros between them. */
static void move_segments(Loader *loader) {
  Elf *elf = loader->elf;
  size_t end = check_segments(loader), filled = elf->size;
  if (end > elf->bytes) {
    char *pages = new_room(loader->memory, end);
    memcpy(pages, elf->pages, filled);
    free_pages(elf->pages, elf->bytes);
    elf->pages = pages;
    elf->bytes = end;
  }
  for (size_t i = loader->segment_count; i-- > 0;) {
    const Segment *segment = &loader->segments[i];
    if (segment->p_type != PT_LOAD) continue;
    memmove(elf->pages + segment->p_vaddr, elf->pages + segment->p_offset, segment->p_filesz);
    size_t behind = segment->p_vaddr + segment->p_filesz;
    if (behind < filled) memset(elf->pages + behind, 0, filled - behind);
    filled = filled < segment->p_vaddr ? filled : segment->p_vaddr;
  }
  memset(elf->pages, 0, filled);
  elf->size = end;
}

static void read_dynamic(Loader *loader) {
  const Segment *dynamic = NULL;
  for (size_t i = 0; i < loader->segment_count; i++) {
    if (loader->segments[i].p_type == PT_DYNAMIC) dynamic = &loader->segments[i];
  }
  check(loader, dynamic != NULL && dynamic->p_vaddr % sizeof(uintptr_t) == 0, "it has no symbols");
  const char *at = loaded(loader, dynamic->p_vaddr, dynamic->p_memsz);
  for (size_t left = dynamic->p_memsz; left >= sizeof(Dynamic); left -= sizeof(Dynamic), at += sizeof(Dynamic)) {
    Dynamic entry;
    memcpy(&entry, at, sizeof entry);
    if (entry.d_tag == DT_NULL) break;
    if (entry.d_tag == DT_NEEDED) refuse(loader, "it needs another library");
    if (entry.d_tag == DT_TEXTREL) refuse(loader, "its instructions would have to be changed");
    if (entry.d_tag == DT_GNU_HASH) loader->gnu_hash = (uintptr_t)entry.d_un.d_val;
    if (entry.d_tag > 0 && entry.d_tag < DT_NUM) loader->table[entry.d_tag] = (uintptr_t)entry.d_un.d_val;
  }
  bool runs = loader->table[DT_INIT] != 0 || loader->table[DT_INIT_ARRAYSZ] != 0 || loader->table[DT_FINI] != 0 ||
              loader->table[DT_FINI_ARRAYSZ] != 0 || loader->table[DT_PREINIT_ARRAYSZ] != 0;
  check(loader, !runs, "it has code that runs when it is loaded or unloaded");
}

static uint32_t word_at(const Loader *loader, uintptr_t address) {
  uint32_t word;
  memcpy(&word, loaded(loader, address, sizeof word), sizeof word);
  return word;
}

/* Only the hash tables tell how many symbols there are. */
static size_t count_symbols(const Loader *loader) {
  uintptr_t plain = loader->table[DT_HASH], hash = loader->gnu_hash;
  if (plain != 0) return word_at(loader, plain + 4);
  check(loader, hash != 0, "it has no symbols");
  size_t buckets = word_at(loader, hash), first = word_at(loader, hash + 4), filter = word_at(loader, hash + 8);
  check(loader, buckets <= loader->file_size / 4 && filter <= loader->file_size / sizeof(uintptr_t),
        "its symbols lie outside of it");
  uintptr_t at = hash + 16 + filter * sizeof(uintptr_t), chains = at + buckets * 4;
  size_t last = 0;
  for (size_t i = 0; i < buckets; i++) {
    size_t symbol = word_at(loader, at + 4 * i);
    last = symbol > last ? symbol : last;
  }
  if (last < first) return first;
  while (last - first < loader->file_size / 4 && (word_at(loader, chains + 4 * (last - first)) & 1) == 0) last++;
  return last + 1;
}

static void read_symbols(Loader *loader) {
  uintptr_t symbols = loader->table[DT_SYMTAB];
  Elf *elf = loader->elf;
  bool fits = symbols != 0 && symbols % sizeof(uintptr_t) == 0 && loader->table[DT_SYMENT] == sizeof(SymbolEntry);
  check(loader, fits, "its symbols are not as expected");
  elf->symbol_count = count_symbols(loader);
  check(loader, elf->symbol_count <= loader->file_size / sizeof(SymbolEntry), "its symbols lie outside of it");
  elf->symbols = (const SymbolEntry *)(const void *)loaded(loader, symbols, elf->symbol_count * sizeof(SymbolEntry));
  elf->names_size = loader->table[DT_STRSZ];
  elf->names = loaded(loader, loader->table[DT_STRTAB], elf->names_size);
  check(loader, elf->names_size > 0 && elf->names[elf->names_size - 1] == '\0', "its names are not closed");
  for (size_t i = 0; i < elf->symbol_count; i++) {
    const SymbolEntry *symbol = &elf->symbols[i];
    unsigned kind = symbol->st_info & 0xF;
    check(loader, symbol->st_name < elf->names_size, "a name lies outside of it");
    check(loader, kind != STT_TLS && kind != STT_GNU_IFUNC, "a symbol is of a kind that is not supported");
    bool defined = symbol->st_shndx != SHN_UNDEF && symbol->st_shndx != SHN_ABS;
    check(loader, !defined || symbol->st_value <= elf->size, "a symbol lies outside of it");
  }
}

static void *given_address(const Loader *loader, const char *name) {
  for (size_t i = 0; i < loader->given_count; i++) {
    if (strcmp(loader->given[i].name, name) == 0) return loader->given[i].address;
  }
  return NULL;
}

/* Address of a symbol: the code's own, or a given one. */
static uintptr_t symbol_address(const Loader *loader, size_t index) {
  const Elf *elf = loader->elf;
  check(loader, index < elf->symbol_count, "a symbol is not there");
  const SymbolEntry *symbol = &elf->symbols[index];
  if (symbol->st_shndx != SHN_UNDEF) return (uintptr_t)elf->pages + symbol->st_value;
  const char *name = elf->names + symbol->st_name;
  void *address = given_address(loader, name);
  if (address == NULL && (symbol->st_info >> 4) != STB_WEAK) {
    fail(loader->memory, EDGEQ_DAMAGED, "%s cannot be loaded: it needs '%s', which libedgeq does not give; compile the "
         "bundle again", loader->file, name);
  }
  return (uintptr_t)address;
}

/* Relocations of `bytes` bytes, with addends of their own or (32-bit ARM) in the places. */
static void relocate(const Loader *loader, uintptr_t table, size_t bytes, bool with_addend) {
  size_t size = with_addend ? sizeof(Relocation) : SMALLEST_RELOCATION;
  if (bytes == 0) return;
  const char *at = loaded(loader, table, bytes);
  for (; bytes >= size; bytes -= size, at += size) {
    Relocation relocation = {0};
    uintptr_t value = 0;
    memcpy(&relocation, at, size);
    int type = (int)RELOCATION_TYPE(relocation.r_info);
    if (type == 0) continue; /* nothing to do */
    char *place = loaded(loader, (uintptr_t)relocation.r_offset, sizeof value);
    uintptr_t addend = (uintptr_t)relocation.r_addend;
    if (!with_addend) memcpy(&addend, place, sizeof addend);
    if (type == RELATIVE) {
      value = (uintptr_t)loader->elf->pages + addend;
    } else if (type == ABSOLUTE || type == GLOBAL || type == JUMP) {
      value = symbol_address(loader, (size_t)RELOCATION_SYMBOL(relocation.r_info));
      if (type == ABSOLUTE || with_addend) value += addend;
    } else {
      refuse(loader, "a relocation is of a kind that is not supported");
    }
    memcpy(place, &value, sizeof value);
  }
}

static void relocate_all(const Loader *loader) {
  const uintptr_t *table = loader->table;
  bool with_addend = table[DT_PLTREL] != DT_REL;
  check(loader, table[DT_RELAENT] == 0 || table[DT_RELAENT] == sizeof(Relocation), "its relocations are not as expected");
  relocate(loader, table[DT_RELA], table[DT_RELASZ], true);
  relocate(loader, table[DT_REL], table[DT_RELSZ], false);
  relocate(loader, table[DT_JMPREL], table[DT_PLTRELSZ], with_addend);
}

/* Variables that the code defines and the library is to fill in. */
static void fill_in(const Loader *loader) {
  for (size_t i = 0; i < loader->given_count; i++) {
    for (size_t k = 0; k < loader->elf->symbol_count; k++) {
      const SymbolEntry *symbol = &loader->elf->symbols[k];
      bool is_variable = (symbol->st_info & 0xF) == STT_OBJECT && symbol->st_shndx != SHN_UNDEF;
      if (!is_variable || strcmp(loader->elf->names + symbol->st_name, loader->given[i].name) != 0) continue;
      memcpy(loaded(loader, symbol->st_value, sizeof(void *)), &loader->given[i].address, sizeof(void *));
    }
  }
}

/* Code may be executed, everything else only read, but for what the code writes to. */
static void protect(const Loader *loader) {
  size_t page = loader->page;
  for (size_t i = 0; i < loader->segment_count; i++) {
    const Segment *segment = &loader->segments[i];
    if (segment->p_type != PT_LOAD || (segment->p_flags & PF_W)) continue;
    size_t start = segment->p_vaddr / page * page;
    size_t end = (segment->p_vaddr + segment->p_memsz + page - 1) / page * page;
    if (!protect_pages(loader->elf->pages + start, end - start, (segment->p_flags & PF_X) != 0)) {
      fail(loader->memory, EDGEQ_FAILED, "the system does not let %s run: it allows no new executable memory",
           loader->file);
    }
  }
}

Elf *elf_copy(Memory *memory, const char *data, size_t size) {
  Elf *elf = allocate_with(memory, sizeof *elf, unload);
  elf->size = size;
  elf->bytes = size + ROOM;
  elf->pages = new_room(memory, elf->bytes);
  if (size > 0) memcpy(elf->pages, data, size);
  return elf;
}

void elf_load(Memory *memory, Elf *elf, const char *file, const Symbol *given, size_t given_count) {
  Loader loader = {
      .memory = memory, .elf = elf, .file = file, .page = page_size(), .file_size = elf->size, .given = given,
      .given_count = given_count};
  read_header(&loader);
  move_segments(&loader);
  read_dynamic(&loader);
  read_symbols(&loader);
  relocate_all(&loader);
  fill_in(&loader);
  protect(&loader);
}

void *elf_find(const Elf *elf, const char *name) {
  for (size_t i = 0; i < elf->symbol_count; i++) {
    const SymbolEntry *symbol = &elf->symbols[i];
    bool defined = symbol->st_shndx != SHN_UNDEF && symbol->st_shndx != SHN_ABS;
    if (defined && strcmp(elf->names + symbol->st_name, name) == 0) return elf->pages + symbol->st_value;
  }
  return NULL;
}

const char *elf_start(const Elf *elf) { return elf->pages; }

#else

Elf *elf_copy(Memory *memory, const char *data, size_t size) {
  (void)data, (void)size;
  fail(memory, EDGEQ_UNSUPPORTED,
       "the bundle's code cannot be loaded: libedgeq loads code on Linux only; link the kernels into the program "
       "(edgeq compile --form sources)");
}

void elf_load(Memory *memory, Elf *elf, const char *file, const Symbol *given, size_t given_count) {
  (void)memory, (void)elf, (void)file, (void)given, (void)given_count;
}

void *elf_find(const Elf *elf, const char *name) {
  (void)elf, (void)name;
  return NULL;
}

const char *elf_start(const Elf *elf) {
  (void)elf;
  return NULL;
}

#endif
