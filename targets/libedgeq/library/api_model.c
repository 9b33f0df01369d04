/* The functions of edgeq.h for models: each runs what it does so that a failure anywhere below comes back as a status. */
#include <stddef.h>
#include <string.h>

#include "bundle.h"
#include "options.h"
#include "platform.h"

uint32_t edgeq_abi_version(void) { return EDGEQ_ABI_MAJOR * 65536 + EDGEQ_ABI_MINOR; }

int32_t edgeq_cores(void) { return available_cores(); }

typedef struct {
  edgeq_model *model;
  Memory *scratch;
  const char *path;
  const void *data; /* instead of a path */
  size_t size;
  const edgeq_open_options *options;
} OpenCall;

static void open_body(void *argument) {
  OpenCall *call = argument;
  if (call->path == NULL && call->data == NULL) fail(call->scratch, EDGEQ_USAGE, "name a bundle");
  const Source *source = call->path != NULL ? open_source(call->scratch, &call->model->memory, call->path)
                                            : memory_source(call->scratch, call->data, call->size);
  read_bundle(call->model, call->scratch, source, call->options);
}

static edgeq_status open_model(OpenCall call, const edgeq_open_options *given, edgeq_model **model) {
  edgeq_open_options options = {0};
  take_options(&options, sizeof options, given);
  edgeq_allocator allocator = options.allocator != NULL ? *options.allocator : DEFAULT_ALLOCATOR;
  edgeq_model *own = *model = allocator.allocate(allocator.context, sizeof *own);
  if (own == NULL) return EDGEQ_NO_MEMORY;
  own->memory = (Memory){.allocator = allocator, .failure = &own->failure};
  Memory scratch = {.allocator = allocator, .failure = &own->failure};
  call.model = own;
  call.scratch = &scratch;
  call.options = &options;
  edgeq_status status = guarded(&own->failure, open_body, &call);
  release_all(&scratch);
  if (status != EDGEQ_OK) { /* nothing is left of it but the sentence */
    release_all(&own->memory);
    size_t kept = offsetof(edgeq_model, failure) + sizeof own->failure;
    memset((char *)own + kept, 0, sizeof *own - kept);
  }
  return status;
}

edgeq_status edgeq_open(const char *path, const edgeq_open_options *options, edgeq_model **model) {
  return open_model((OpenCall){.path = path}, options, model);
}

edgeq_status edgeq_open_memory(const void *data, size_t size, const edgeq_open_options *options, edgeq_model **model) {
  return open_model((OpenCall){.data = data, .size = size}, options, model);
}

void edgeq_close(edgeq_model *model) {
  if (model == NULL) return;
  edgeq_allocator allocator = model->memory.allocator;
  release_all(&model->memory);
  allocator.release(allocator.context, model);
}

const char *edgeq_error(const edgeq_model *model) {
  return model != NULL ? model->failure.sentence : "out of memory (a handle)";
}

const edgeq_info *edgeq_model_info(const edgeq_model *model) { return &model->info; }

const char *edgeq_manifest(const edgeq_model *model, size_t *size) {
  *size = model->manifest != NULL ? model->manifest->size : 0;
  return model->manifest != NULL ? model->manifest->data : "";
}

/* That of a function which is not there is empty. */
static const Interface *interface_of(const edgeq_model *model, int32_t function) {
  static const Interface none = {0};
  return function >= 0 && function < EDGEQ_FUNCTIONS ? &model->functions[function].interface : &none;
}

size_t edgeq_input_count(const edgeq_model *model, int32_t function) {
  return interface_of(model, function)->input_count;
}

size_t edgeq_output_count(const edgeq_model *model, int32_t function) {
  return interface_of(model, function)->output_count;
}

size_t edgeq_state_count(const edgeq_model *model, int32_t function) {
  return interface_of(model, function)->state_count;
}

const edgeq_tensor_info *edgeq_input_info(const edgeq_model *model, int32_t function, size_t index) {
  const Interface *interface = interface_of(model, function);
  return index < interface->input_count ? &interface->inputs[index] : NULL;
}

const edgeq_tensor_info *edgeq_output_info(const edgeq_model *model, int32_t function, size_t index) {
  const Interface *interface = interface_of(model, function);
  return index < interface->output_count ? &interface->outputs[index] : NULL;
}

const edgeq_tensor_info *edgeq_state_info(const edgeq_model *model, int32_t function, size_t index) {
  const Interface *interface = interface_of(model, function);
  return index < interface->state_count ? &interface->state[index] : NULL;
}

size_t edgeq_golden_count(const edgeq_model *model) { return model->golden_count; }

edgeq_status edgeq_golden(const edgeq_model *model, size_t index, int32_t *function, edgeq_tensor *inputs,
                          edgeq_tensor *outputs) {
  if (index >= model->golden_count) return EDGEQ_USAGE;
  const GoldenRun *run = &model->golden[index];
  const Interface *interface = interface_of(model, run->function);
  if (!golden_is_good(model, run)) return EDGEQ_DAMAGED;
  *function = run->function;
  memcpy(inputs, run->inputs, interface->input_count * sizeof *inputs);
  memcpy(outputs, run->outputs, interface->output_count * sizeof *outputs);
  return EDGEQ_OK;
}

const void *edgeq_code(const edgeq_model *model) { return model->code; }
