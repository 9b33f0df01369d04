/* A plugin of qemu's user-mode emulators: how often each block of machine code in one library runs.
 *
 * Debian has no header for plugins, so what is used of the interface is declared here (qemu-plugin.h, versions 1 and 2,
 * which agree on all of it). Arguments: library=NAME (end of the path of the mapped file), out=FILE. At exit it writes
 * a line for each block: offset in the file, instructions, executions; blocks may overlap and repeat. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*call)(uint64_t id, struct qemu_plugin_tb *block));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, void (*call)(unsigned cpu, void *data),
                                          int registers, void *data);
void qemu_plugin_register_atexit_cb(uint64_t id, void (*call)(uint64_t id, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *instruction);

enum { NO_REGISTERS = 0 };

__attribute__((visibility("default"))) int qemu_plugin_version = PLUGIN_VERSION;

typedef struct Block {
  struct Block *next;
  uintptr_t address; /* in the emulator's own memory */
  size_t instructions;
  uint64_t executions;
} Block;

static Block *blocks;
static const char *library = "model.so", *out = "counts";

/* The kernels run on one thread, so nothing here is locked. */
static void on_execution(unsigned cpu, void *data) {
  (void)cpu;
  ((Block *)data)->executions++;
}

static void on_translation(uint64_t id, struct qemu_plugin_tb *translated) {
  (void)id;
  Block *block = calloc(1, sizeof *block);
  if (block == NULL) abort();
  block->address = (uintptr_t)qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(translated, 0));
  block->instructions = qemu_plugin_tb_n_insns(translated);
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_cb(translated, on_execution, NO_REGISTERS, block);
}

static void write_blocks(FILE *to, uintptr_t start, uintptr_t end, unsigned long offset) {
  for (const Block *block = blocks; block != NULL; block = block->next) {
    if (block->address < start || block->address >= end || block->executions == 0) continue;
    fprintf(to, "%lx %zu %llu\n", (unsigned long)(block->address - start) + offset, block->instructions,
            (unsigned long long)block->executions);
  }
}

static void on_exit_of_program(uint64_t id, void *data) {
  (void)id;
  (void)data;
  FILE *maps = fopen("/proc/self/maps", "r"), *to = fopen(out, "w");
  char line[4400];
  if (maps == NULL || to == NULL) return;
  while (fgets(line, sizeof line, maps) != NULL) {
    unsigned long start, end, offset;
    line[strcspn(line, "\n")] = '\0';
    size_t length = strlen(line), wanted = strlen(library);
    bool is_library = length > wanted && strcmp(line + length - wanted, library) == 0;
    if (is_library && sscanf(line, "%lx-%lx %*s %lx", &start, &end, &offset) == 3) write_blocks(to, start, end, offset);
  }
  fclose(maps);
  fclose(to);
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *info, int count, char **words) {
  (void)info;
  for (int i = 0; i < count; i++) {
    if (strncmp(words[i], "library=", 8) == 0) library = strdup(words[i] + 8);
    if (strncmp(words[i], "out=", 4) == 0) out = strdup(words[i] + 4);
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_atexit_cb(id, on_exit_of_program, NULL);
  return 0;
}
