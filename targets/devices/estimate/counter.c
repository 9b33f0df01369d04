/* A plugin of qemu's user-mode emulators: how often each block of machine code runs.
 *
 * Debian has no header for plugins, so what is used of the interface is declared here (qemu-plugin.h, versions 1 and 2,
 * which agree on all of it). Arguments: out=FILE, and words=on for code that lies in no file known beforehand. At exit it
 * writes a line for each block: address in the program, instructions, executions, and with words=on the bytes of each
 * instruction in hexadecimal digits; blocks may overlap and repeat. With marked=on it counts from the program's first
 * getsid(MARK) to its second, on AArch64, and writes nothing if there are none. */
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
void qemu_plugin_register_vcpu_syscall_cb(uint64_t id, void (*call)(uint64_t id, unsigned cpu, int64_t number, uint64_t a1,
                                                                    uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5,
                                                                    uint64_t a6, uint64_t a7, uint64_t a8));
void qemu_plugin_register_atexit_cb(uint64_t id, void (*call)(uint64_t id, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *instruction);
/* Up to qemu 9.0 it takes the instruction alone and returns where its bytes are; since then it copies them to `bytes`
 * and returns how many. */
uintptr_t qemu_plugin_insn_data(const struct qemu_plugin_insn *instruction, void *bytes, size_t size);

enum { NO_REGISTERS = 0, LONGEST = 15 /* bytes of an instruction, on x86 */ };
enum { GETSID = 156, MARK = 0x45515431 /* no process has this id */ };

__attribute__((visibility("default"))) int qemu_plugin_version = PLUGIN_VERSION;

typedef struct Block {
  struct Block *next;
  uint64_t address; /* in the memory of the program */
  size_t instructions;
  uint64_t executions;
  char *words; /* NULL without words=on */
} Block;

static Block *blocks;
static const char *out = "counts";
static bool with_words = false, marked = false, counting = true, written = false;

/* The kernels run on one thread, so nothing here is locked. */
static void on_execution(unsigned cpu, void *data) {
  (void)cpu;
  if (counting) ((Block *)data)->executions++;
}

static char *words_of(const struct qemu_plugin_tb *translated, size_t count) {
  char *text = calloc(count, 2 * LONGEST + 1), *to = text;
  if (text == NULL) abort();
  for (size_t i = 0; i < count; i++) {
    const struct qemu_plugin_insn *one = qemu_plugin_tb_get_insn(translated, i);
    unsigned char copy[LONGEST];
    const size_t size = qemu_plugin_insn_size(one);
    const uintptr_t answer = qemu_plugin_insn_data(one, copy, size);
    const unsigned char *bytes = answer == size ? copy : (const unsigned char *)answer;
    for (size_t k = 0; k < size; k++) to += sprintf(to, "%02x", bytes[k]);
    if (i + 1 < count) *to++ = ',';
  }
  return text;
}

static void on_translation(uint64_t id, struct qemu_plugin_tb *translated) {
  (void)id;
  Block *block = calloc(1, sizeof *block);
  if (block == NULL) abort();
  block->address = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(translated, 0));
  block->instructions = qemu_plugin_tb_n_insns(translated);
  if (with_words) block->words = words_of(translated, block->instructions);
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_cb(translated, on_execution, NO_REGISTERS, block);
}

static void write_counts(void) {
  written = true;
  FILE *to = fopen(out, "w");
  if (to == NULL) return;
  for (const Block *block = blocks; block != NULL; block = block->next) {
    if (block->executions == 0) continue;
    fprintf(to, "%llx %zu %llu%s%s\n", (unsigned long long)block->address, block->instructions,
            (unsigned long long)block->executions, block->words ? " " : "", block->words ? block->words : "");
  }
  fclose(to);
}

static void on_exit_of_program(uint64_t id, void *data) {
  (void)id;
  (void)data;
  if (!marked) write_counts();
}

static void on_system_call(uint64_t id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                           uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  (void)id, (void)cpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
  if (number != GETSID || (uint32_t)a1 != MARK || written) return;
  if (counting) write_counts();
  counting = !counting;
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *info, int count, char **words) {
  (void)info;
  for (int i = 0; i < count; i++) {
    if (strncmp(words[i], "out=", 4) == 0) out = strdup(words[i] + 4);
    if (strcmp(words[i], "words=on") == 0) with_words = true;
    if (strcmp(words[i], "marked=on") == 0) marked = true;
  }
  counting = !marked;
  if (marked) qemu_plugin_register_vcpu_syscall_cb(id, on_system_call);
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_atexit_cb(id, on_exit_of_program, NULL);
  return 0;
}
