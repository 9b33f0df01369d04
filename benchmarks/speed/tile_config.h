/* Included before every C++ file of llama.cpp, where the processor has AMX.
 *
 * gcc 12 takes the operand of _tile_loadconfig for 8 bytes of the 64 that the instruction reads, and leaves out the
 * stores of the others: the tiles have no rows, and the first of them that is loaded is an illegal instruction.
 */
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg %0" : : "m"(*(const char (*)[64])(config)))
#endif
