#include "cpu.h"

#include <stddef.h>
#include <string.h>

#include "platform.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdatomic.h>
#include <stdint.h>

/* Registers that the system must save when it changes threads, as bits of XCR0. */
enum { NO_REGISTERS = 0, AVX_REGISTERS = 0x06, AVX512_REGISTERS = 0xE6, TILE_REGISTERS = 0x60000 };
typedef enum { EAX, EBX, ECX, EDX } Register;

/* What the processor says of itself, by the question. In a virtual machine each question takes some microseconds, so it is
 * asked once. Every thread finds the same, so it does not matter who writes it. */
typedef enum { BASE, EXTENDED, EXTENDED_MORE, EXTRA, SYSTEM, QUESTIONS } Question;

static _Atomic uint32_t answers[QUESTIONS][4];
static atomic_bool is_asked[QUESTIONS];

static uint32_t answer(Question question, Register from);

/* Whether the processor knows a question. All that have 64 bits know the first; each further look costs as much as one. */
static bool is_known(Question question) {
  switch (question) {
    case EXTENDED: return (unsigned)__get_cpuid_max(0, NULL) >= 7;
    case EXTENDED_MORE: return answer(EXTENDED, EAX) >= 1;
    case EXTRA: return (unsigned)__get_cpuid_max(0x80000000, NULL) >= 0x80000001;
    default: return true;
  }
}

/* Asked by hand: what compilers have for it, not all of them can link. */
static void ask(Question question, unsigned found[4]) {
  static const struct {
    unsigned leaf, subleaf;
  } LEAVES[] = {[BASE] = {1, 0}, [EXTENDED] = {7, 0}, [EXTENDED_MORE] = {7, 1}, [EXTRA] = {0x80000001, 0}};
  if (!is_known(question)) return;
  if (question == SYSTEM) {
    __asm__ volatile("xgetbv" : "=a"(found[EAX]), "=d"(found[EDX]) : "c"(0));
  } else {
    __cpuid_count(LEAVES[question].leaf, LEAVES[question].subleaf, found[EAX], found[EBX], found[ECX], found[EDX]);
  }
}

static uint32_t answer(Question question, Register from) {
  if (!atomic_load_explicit(&is_asked[question], memory_order_acquire)) {
    unsigned found[4] = {0};
    ask(question, found);
    for (int i = 0; i < 4; i++) atomic_store_explicit(&answers[question][i], found[i], memory_order_relaxed);
    atomic_store_explicit(&is_asked[question], true, memory_order_release);
  }
  return atomic_load_explicit(&answers[question][from], memory_order_relaxed);
}

/* Whether Linux gives this process the tiles of AMX, which it saves only for processes that ask: this asks. C libraries
 * have no function for it. It fails where the system is too old, or where a thread of the process has a signal stack that
 * tiles would not fit on. */
static bool system_gives_tiles(void) {
#if defined(__linux__)
  enum { ARCH_PRCTL = 158, ASK_FOR_REGISTERS = 0x1023, TILES = 18 };
  long result = ARCH_PRCTL;
  __asm__ volatile("syscall" : "+a"(result) : "D"(ASK_FOR_REGISTERS), "S"(TILES) : "rcx", "r11", "memory");
  return result == 0;
#else
  return false;
#endif
}

static bool system_saves(unsigned registers) {
  if (registers == NO_REGISTERS) return true;
  if ((answer(BASE, ECX) >> 27 & 1) == 0) return false;
  if ((answer(SYSTEM, EAX) & registers) != registers) return false;
  return registers != TILE_REGISTERS || system_gives_tiles();
}

bool cpu_has(const char *flag) {
  static const struct {
    const char *flag;
    Question question;
    Register from;
    int bit;
    unsigned registers;
  } KNOWN[] = {
      {"avx2", EXTENDED, EBX, 5, AVX_REGISTERS},          {"fma", BASE, ECX, 12, AVX_REGISTERS},
      {"bmi2", EXTENDED, EBX, 8, NO_REGISTERS},           {"avx512f", EXTENDED, EBX, 16, AVX512_REGISTERS},
      {"avx512bw", EXTENDED, EBX, 30, AVX512_REGISTERS},  {"avx512dq", EXTENDED, EBX, 17, AVX512_REGISTERS},
      {"avx512vl", EXTENDED, EBX, 31, AVX512_REGISTERS},  {"avx512_vnni", EXTENDED, ECX, 11, AVX512_REGISTERS},
      {"amx_tile", EXTENDED, EDX, 24, TILE_REGISTERS},    {"amx_int8", EXTENDED, EDX, 25, TILE_REGISTERS},
      {"avx_vnni", EXTENDED_MORE, EAX, 4, AVX_REGISTERS}, {"sha_ni", EXTENDED, EBX, 29, NO_REGISTERS},
      {"sse4_1", BASE, ECX, 19, NO_REGISTERS},        {"sse4_2", BASE, ECX, 20, NO_REGISTERS},
      {"ssse3", BASE, ECX, 9, NO_REGISTERS},          {"pni", BASE, ECX, 0, NO_REGISTERS},
      {"cx16", BASE, ECX, 13, NO_REGISTERS},          {"popcnt", BASE, ECX, 23, NO_REGISTERS},
      {"movbe", BASE, ECX, 22, NO_REGISTERS},         {"avx", BASE, ECX, 28, AVX_REGISTERS},
      {"f16c", BASE, ECX, 29, AVX_REGISTERS},         {"bmi1", EXTENDED, EBX, 3, NO_REGISTERS},
      {"abm", EXTRA, ECX, 5, NO_REGISTERS},   {"avx512cd", EXTENDED, EBX, 28, AVX512_REGISTERS},
      {"pclmulqdq", BASE, ECX, 1, NO_REGISTERS},      {"vpclmulqdq", EXTENDED, ECX, 10, AVX_REGISTERS},
  };
  for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
    if (strcmp(flag, KNOWN[i].flag) != 0) continue;
    return system_saves(KNOWN[i].registers) && (answer(KNOWN[i].question, KNOWN[i].from) >> KNOWN[i].bit & 1) != 0;
  }
  return false;
}

#else

bool cpu_has(const char *flag) { return system_names_flag(flag); }

#endif
