/* The plan of a function: the kernels that it calls, one after the other, and the tensors between them. Sizes are
 * expressions of dimensions, which a call chooses. */
#ifndef EDGEQ_PLAN_H
#define EDGEQ_PLAN_H

#include "json.h"
#include "specs.h"

enum {
  MAX_DIMENSIONS = 32,
  MAX_PLAN_TENSORS = 1 << 12,
  MAX_STEPS = 1 << 14,
  MAX_KERNELS = 1 << 10,
  MAX_ARGUMENTS = 64,
  MAX_TERMS = 1 << 10, /* of an expression */
  MAX_DEPTH = 64,      /* numbers of an expression that wait for their operation */
};

/* What a step takes. */
typedef enum { OF_INPUT, OF_STATE, OF_WEIGHT, OF_TENSOR, OF_INTEGER } Origin;

typedef struct {
  Origin origin;
  uint32_t index; /* of the input, state, weight or tensor; for OF_INTEGER of the expression */
} Argument;

typedef enum { CONSTANT, DIMENSION, ADD, SUBTRACT, MULTIPLY, DIVIDE, REMAINDER, MINIMUM, MAXIMUM } Operation;

/* Postfix: an expression is a run of terms. */
typedef struct {
  int32_t operation;
  int64_t value; /* of a CONSTANT; the number of a DIMENSION */
} Term;

typedef struct {
  uint32_t first, count; /* of the plan's terms */
} Expression;

typedef struct {
  int32_t type, rank;
  Expression shape[EDGEQ_MAX_RANK];
  bool is_view;      /* the same memory as `base`, in another shape */
  Argument base;
  uint32_t first, last; /* steps that use its memory; after the last step for outputs */
} PlanTensor;

typedef struct {
  uint32_t kernel; /* number of its name */
  uint32_t first_argument, argument_count;
  bool reads_rows;            /* of a table, those that ids name, and nothing else of it: */
  uint32_t ids, table;        /* numbers of these arguments */
  uint32_t tile;              /* rows that lie together, as one entry of the table's first axis */
  bool has_workspace;
  Expression workspace; /* bytes that one thread needs while it runs a part of the kernel */
} PlanStep;

/* What is known of the function that the plan is for. */
typedef struct {
  const Spec *inputs, *outputs, *state;
  size_t input_count, output_count, state_count, weight_count;
} Interface;

typedef struct {
  const char **dimensions;
  size_t dimension_count;
  Term *terms;
  PlanTensor *tensors;
  size_t tensor_count;
  Expression *integers;
  PlanStep *steps;
  size_t step_count;
  Argument *arguments; /* of all steps */
  Argument *outputs;   /* as many as the function's */
  const char **kernels;
  size_t kernel_count;
} Plan;

/* Reads a plan and checks that nothing in it refers to what is not there. */
Plan *read_plan(Memory *memory, const Json *json, const JsonValue *table, const Interface *interface);

/* Value of an expression for the sizes of the dimensions; fails if it is too large for 64 bits, or divides by zero. */
int64_t evaluate(const Memory *memory, const Plan *plan, Expression expression, const int64_t *sizes);

/* The input, state, weight or tensor that is no view whose memory an argument has. */
Argument root_of(const Plan *plan, Argument argument);

#endif
