/* A plan for one set of sizes: places of all tensors and the arguments of all kernels, made once. */
#ifndef EDGEQ_PREPARED_H
#define EDGEQ_PREPARED_H

#include "kernel.h"
#include "plan.h"

/* Bytes of tensors, and then of what each thread needs for itself: multiples of EDGEQ_ALIGNMENT. */
typedef struct {
  size_t tensors, workspace;
} ArenaSize;

typedef struct {
  Memory memory; /* of everything below */
  const Plan *plan;
  const Interface *interface;
  int64_t sizes[MAX_DIMENSIONS];
  ArenaSize size;
  size_t *offsets;       /* of inputs, then of the plan's tensors, in the arena */
  KernelTensor *tensors; /* inputs, state, the plan's tensors */
  KernelValue *values;   /* arguments of all steps */
  edgeq_tensor *outputs;
  KernelTensor *weights; /* the model's */
  uint64_t newest_use;
} Prepared;

/* Prepares a plan for the sizes of its dimensions. `weights` are the model's. */
Prepared *prepare(Memory *memory, const Plan *plan, const Interface *interface, KernelTensor *weights,
                  const int64_t *sizes);

/* The arena that a plan needs for these sizes, without what else prepare() makes. */
ArenaSize arena_size(Memory *memory, const Plan *plan, const Interface *interface, const int64_t *sizes);

/* Makes all tensors point into an arena and to the caches. */
void bind(Prepared *prepared, char *arena, const edgeq_tensor *state);

/* Where an input is to be put. */
void *input_place(const Prepared *prepared, size_t input);

/* Describes a tensor to kernels; `shape` is kept. */
KernelTensor kernel_tensor(int32_t type, int32_t rank, int64_t *shape, void *data);

#endif
