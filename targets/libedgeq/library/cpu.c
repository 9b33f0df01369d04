#include "cpu.h"

#include <stddef.h>
#include <string.h>

#include "platform.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdint.h>

/* Registers that the system must save when it changes threads, as bits of XCR0. */
enum { NO_REGISTERS = 0, AVX_REGISTERS = 0x06, AVX512_REGISTERS = 0xE6 };
typedef enum { EAX, EBX, ECX, EDX } Register;

/* Asked by hand: what compilers have for it, not all of them can link. */
static bool has_bit(unsigned leaf, unsigned subleaf, Register from, int bit) {
  unsigned found[4] = {0};
  bool known = __get_cpuid_count(leaf, subleaf, &found[EAX], &found[EBX], &found[ECX], &found[EDX]) != 0;
  return known && (found[from] >> bit & 1) != 0;
}

static bool system_saves(unsigned registers) {
  uint32_t low = 0, high = 0;
  if (registers == NO_REGISTERS) return true;
  if (!has_bit(1, 0, ECX, 27)) return false;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & registers) == registers;
}

bool cpu_has(const char *flag) {
  static const struct {
    const char *flag;
    unsigned leaf, subleaf;
    Register from;
    int bit;
    unsigned registers;
  } KNOWN[] = {
      {"avx2", 7, 0, EBX, 5, AVX_REGISTERS},          {"fma", 1, 0, ECX, 12, AVX_REGISTERS},
      {"bmi2", 7, 0, EBX, 8, NO_REGISTERS},           {"avx512f", 7, 0, EBX, 16, AVX512_REGISTERS},
      {"avx512bw", 7, 0, EBX, 30, AVX512_REGISTERS},  {"avx512dq", 7, 0, EBX, 17, AVX512_REGISTERS},
      {"avx512vl", 7, 0, EBX, 31, AVX512_REGISTERS},  {"avx512_vnni", 7, 0, ECX, 11, AVX512_REGISTERS},
      {"avx_vnni", 7, 1, EAX, 4, AVX_REGISTERS},      {"sha_ni", 7, 0, EBX, 29, NO_REGISTERS},
      {"sse4_1", 1, 0, ECX, 19, NO_REGISTERS},        {"sse4_2", 1, 0, ECX, 20, NO_REGISTERS},
      {"ssse3", 1, 0, ECX, 9, NO_REGISTERS},          {"pni", 1, 0, ECX, 0, NO_REGISTERS},
      {"cx16", 1, 0, ECX, 13, NO_REGISTERS},          {"popcnt", 1, 0, ECX, 23, NO_REGISTERS},
      {"movbe", 1, 0, ECX, 22, NO_REGISTERS},         {"avx", 1, 0, ECX, 28, AVX_REGISTERS},
      {"f16c", 1, 0, ECX, 29, AVX_REGISTERS},         {"bmi1", 7, 0, EBX, 3, NO_REGISTERS},
      {"abm", 0x80000001, 0, ECX, 5, NO_REGISTERS},   {"avx512cd", 7, 0, EBX, 28, AVX512_REGISTERS},
  };
  for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
    if (strcmp(flag, KNOWN[i].flag) != 0) continue;
    return system_saves(KNOWN[i].registers) && has_bit(KNOWN[i].leaf, KNOWN[i].subleaf, KNOWN[i].from, KNOWN[i].bit);
  }
  return false;
}

#else

bool cpu_has(const char *flag) { return system_names_flag(flag); }

#endif
