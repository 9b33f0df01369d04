/* A plugin of qemu's user-mode emulators: how often each block of machine code runs.
 *
 * Debian has no header for plugins, so what is used of the interface is declared here (qemu-plugin.h, versions 1 and 2,
 * which agree on all of it). Argument: out=FILE. At exit it writes a line for each block: address in the program,
 * instructions, executions; blocks may overlap and repeat. */
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
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);

enum { NO_REGISTERS = 0 };

__attribute__((visibility("default"))) int qemu_plugin_version = PLUGIN_VERSION;

typedef struct Block {
  struct Block *next;
  uint64_t address; /* in the memory of the program */
  size_t instructions;
  uint64_t executions;
} Block;

static Block *blocks;
static const char *out = "counts";

/* The kernels run on one thread, so nothing here is locked. */
static void on_execution(unsigned cpu, void *data) {
  (void)cpu;
  ((Block *)data)->executions++;
}

static void on_translation(uint64_t id, struct qemu_plugin_tb *translated) {
  (void)id;
  Block *block = calloc(1, sizeof *block);
  if (block == NULL) abort();
  block->address = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(translated, 0));
  block->instructions = qemu_plugin_tb_n_insns(translated);
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_cb(translated, on_execution, NO_REGISTERS, block);
}

static void on_exit_of_program(uint64_t id, void *data) {
  (void)id;
  (void)data;
  FILE *to = fopen(out, "w");
  if (to == NULL) return;
  for (const Block *block = blocks; block != NULL; block = block->next) {
    if (block->executions == 0) continue;
    fprintf(to, "%llx %zu %llu\n", (unsigned long long)block->address, block->instructions,
            (unsigned long long)block->executions);
  }
  fclose(to);
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *info, int count, char **words) {
  (void)info;
  for (int i = 0; i < count; i++) {
    if (strncmp(words[i], "out=", 4) == 0) out = strdup(words[i] + 4);
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_atexit_cb(id, on_exit_of_program, NULL);
  return 0;
}
