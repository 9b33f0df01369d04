/* How compiled kernels are called: the same memory as TVM's FFI and DLPack describe (TVMFFIAny, DLTensor), in our words. */
#ifndef EDGEQ_KERNEL_H
#define EDGEQ_KERNEL_H

#include <stdint.h>

enum { KERNEL_INTEGER = 1, KERNEL_TENSOR = 7 }; /* KernelValue.kind */
enum { ON_CPU = 1 };
enum { SIGNED = 0, UNSIGNED = 1, FLOATING = 2, BOOLEAN = 6 }; /* KernelTensor.code */

typedef struct {
  void *data;
  int32_t device, device_number;
  int32_t rank;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape;
  int64_t *strides; /* NULL: C order, no gaps */
  uint64_t offset;
} KernelTensor;

typedef struct {
  int32_t kind;
  uint32_t padding;
  union {
    int64_t integer;
    void *pointer;
  };
} KernelValue;

typedef int (*Kernel)(void *self, const KernelValue *arguments, int32_t count, KernelValue *result);

/* A part of a kernel's work: of `task_count` parts, number `task`. */
typedef struct {
  void *sync;
  int32_t task_count;
} TaskGroup;

typedef int (*Task)(int task, TaskGroup *group, void *closure);

/* Runs all parts of a task, `tasks` of them or, if that is 0, as many as suit. */
typedef int (*Launch)(Task task, void *closure, int tasks);

#endif
