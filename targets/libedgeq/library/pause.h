/* What a thread does between two looks at something that changes soon. */
#ifndef EDGEQ_PAUSE_H
#define EDGEQ_PAUSE_H

static inline void pause_briefly(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__ARM_ARCH_7A__)
  __asm__ volatile("yield" ::: "memory");
#else
  __asm__ volatile("" ::: "memory");
#endif
}

#endif
