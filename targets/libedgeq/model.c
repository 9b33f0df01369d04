#include "model.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

#include "cpu.h"
#include "fail.h"

enum { POOLED_ALLOCATOR = 2, KEPT_SHAPES = 8 };

/* What is used of TVM's C API. It is looked up at start rather than linked, so that the program builds
 * without the target's libraries and says in a sentence when they are missing. */
typedef struct {
  void (*get_version)(TVMFFIVersion *version);
  int (*get_global)(const TVMFFIByteArray *name, TVMFFIObjectHandle *out);
  int (*call)(TVMFFIObjectHandle function, TVMFFIAny *arguments, int32_t count, TVMFFIAny *result);
  int (*release)(TVMFFIObjectHandle object);
  int (*from_dlpack)(DLManagedTensor *from, int32_t alignment, int32_t contiguous, TVMFFIObjectHandle *out);
  void (*take_error)(TVMFFIObjectHandle *out);
  int (*new_function)(void *self, TVMFFISafeCallType call, void (*deleter)(void *), TVMFFIObjectHandle *out);
} Api;

/* A function and what it takes: inputs, then its caches, then weights. */
typedef struct {
  TVMFFIObjectHandle function;
  TVMFFIAny *arguments;
  int32_t argument_count;
  size_t cache_count;
} Call;

struct Model {
  const Bundle *bundle;
  Api api;
  TVMFFIObjectHandle array_size, array_item, free_blocks, set_instrument;
  Call calls[FUNCTIONS];
  bool has_state;
  int64_t *seen_shapes; /* KEPT_SHAPES rows: a function and all its input sizes */
  size_t seen_count, sizes_per_shape;
  void (*watch)(void *context, const KernelEvent *event); /* NULL for none */
  void *watch_context;
};

static void *open_library(const char *folder, const char *name) {
  size_t length = strlen(folder) + strlen(name) + 2;
  char *path = allocate(length, 1);
  snprintf(path, length, "%s/%s", folder, name);
  /* Global: model.so and libtvm_runtime.so look for TVM's symbols in what is already loaded. */
  void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  if (library == NULL) fail(EXIT_FAULT, "cannot load TVM's runtime: %s", dlerror());
  free(path);
  return library;
}

static void look_up(void *library, const char *name, void *function, size_t size) {
  void *symbol = dlsym(library, name);
  if (symbol == NULL) fail(EXIT_FAULT, "libtvm_ffi.so has no %s; copy the bundle again", name);
  /* ISO C has no cast from void * to a function pointer; POSIX says that they are the same size. */
  memcpy(function, &symbol, size);
}

static void open_api(Api *api, const char *folder) {
  TVMFFIVersion version;
  void *ffi = open_library(folder, "libtvm_ffi.so");
  open_library(folder, "libtvm_runtime.so");
  look_up(ffi, "TVMFFIGetVersion", &api->get_version, sizeof api->get_version);
  look_up(ffi, "TVMFFIFunctionGetGlobal", &api->get_global, sizeof api->get_global);
  look_up(ffi, "TVMFFIFunctionCall", &api->call, sizeof api->call);
  look_up(ffi, "TVMFFIObjectDecRef", &api->release, sizeof api->release);
  look_up(ffi, "TVMFFITensorFromDLPack", &api->from_dlpack, sizeof api->from_dlpack);
  look_up(ffi, "TVMFFIErrorMoveFromRaised", &api->take_error, sizeof api->take_error);
  look_up(ffi, "TVMFFIFunctionCreate", &api->new_function, sizeof api->new_function);
  api->get_version(&version);
  if (version.major != TVM_FFI_VERSION_MAJOR || version.minor != TVM_FFI_VERSION_MINOR) {
    fail(EXIT_FAULT, "libtvm_ffi.so is version %u.%u, edgeq-run was built for %d.%d; copy the bundle again",
         version.major, version.minor, TVM_FFI_VERSION_MAJOR, TVM_FFI_VERSION_MINOR);
  }
}

static _Noreturn void fail_with_tvm_error(const Api *api, const char *doing) {
  TVMFFIObjectHandle error = NULL;
  api->take_error(&error);
  if (error == NULL) fail(EXIT_FAULT, "TVM failed to %s and gave no reason", doing);
  const TVMFFIErrorCell *cell = (const TVMFFIErrorCell *)((const char *)error + sizeof(TVMFFIObject));
  size_t length = cell->message.size;
  for (size_t i = 0; i < cell->message.size; i++) {
    if (cell->message.data[i] == '\n' && i > 0) {
      length = i;
      break;
    }
  }
  fail(EXIT_FAULT, "TVM failed to %s: %.*s", doing, (int)(length < 2000 ? length : 2000), cell->message.data);
}

static TVMFFIObjectHandle global_function(const Api *api, const char *name) {
  TVMFFIByteArray key = {name, strlen(name)};
  TVMFFIObjectHandle function = NULL;
  if (api->get_global(&key, &function) != 0) fail_with_tvm_error(api, "look up a function");
  if (function == NULL) fail(EXIT_FAULT, "TVM's runtime has no function %s; copy the bundle again", name);
  return function;
}

static TVMFFIAny call(const Api *api, TVMFFIObjectHandle function, TVMFFIAny *arguments, int32_t count,
                      const char *doing) {
  TVMFFIAny result = {0};
  if (api->call(function, arguments, count, &result) != 0) fail_with_tvm_error(api, doing);
  return result;
}

static TVMFFIAny any_integer(int64_t value) {
  TVMFFIAny any = {0};
  any.type_index = kTVMFFIInt;
  any.v_int64 = value;
  return any;
}

static TVMFFIAny any_text(const char *text) {
  TVMFFIAny any = {0};
  any.type_index = kTVMFFIRawStr;
  any.v_c_str = text;
  return any;
}

static TVMFFIAny any_object(TVMFFIObjectHandle object) {
  TVMFFIAny any = {0};
  any.type_index = ((TVMFFIObject *)object)->type_index;
  any.v_obj = object;
  return any;
}

/* Method `name` of a module. */
static TVMFFIObjectHandle module_function(const Api *api, TVMFFIAny module, const char *name) {
  TVMFFIAny arguments[3] = {module, any_text(name), {0}};
  arguments[2].type_index = kTVMFFIBool;
  TVMFFIObjectHandle get = global_function(api, "ffi.ModuleGetFunction");
  TVMFFIAny function = call(api, get, arguments, 3, "read model.so");
  api->release(get);
  if (function.type_index != kTVMFFIFunction) {
    fail(EXIT_FAULT, "model.so has no function %s; compile the bundle again", name);
  }
  return function.v_obj;
}

static void delete_managed(DLManagedTensor *managed) { free(managed); }

/* A TVM tensor over memory that the caller keeps: only the description is allocated. */
static TVMFFIAny wrap(const Api *api, const Array *array) {
  size_t dimensions = (size_t)array->dimensions;
  DLManagedTensor *managed = allocate(1, sizeof *managed + dimensions * sizeof(int64_t));
  int64_t *shape = (int64_t *)(managed + 1);
  memcpy(shape, array->shape, dimensions * sizeof *shape);
  managed->deleter = delete_managed;
  /* DLPack has no const; nothing writes to inputs or weights, and a state is not constant. */
  managed->dl_tensor.data = (void *)(uintptr_t)array->data;
  managed->dl_tensor.device.device_type = kDLCPU;
  managed->dl_tensor.ndim = array->dimensions;
  managed->dl_tensor.dtype.code = array->type->code;
  managed->dl_tensor.dtype.bits = array->type->bits;
  managed->dl_tensor.dtype.lanes = 1;
  managed->dl_tensor.shape = shape;
  TVMFFIObjectHandle tensor = NULL;
  if (api->from_dlpack(managed, DATA_ALIGNMENT, 1, &tensor) != 0) fail_with_tvm_error(api, "wrap a tensor");
  return any_object(tensor);
}

static void load_machine(Model *model) {
  const Api *api = &model->api;
  char *path = bundle_file(model->bundle, "model.so");
  TVMFFIAny argument = any_text(path);
  TVMFFIObjectHandle load = global_function(api, "ffi.ModuleLoadFromFile");
  TVMFFIAny library = call(api, load, &argument, 1, "load model.so");
  TVMFFIObjectHandle new_machine = module_function(api, library, "vm_load_executable");
  TVMFFIAny machine = call(api, new_machine, NULL, 0, "start the virtual machine");
  TVMFFIObjectHandle start = module_function(api, machine, "vm_initialization");
  TVMFFIAny settings[3] = {any_integer(kDLCPU), any_integer(0), any_integer(POOLED_ALLOCATOR)};
  call(api, start, settings, 3, "start the virtual machine");
  model->set_instrument = module_function(api, machine, "set_instrument");
  for (int name = 0; name < FUNCTIONS; name++) {
    const char *wanted = model->bundle->functions[name].name;
    if (wanted != NULL) model->calls[name].function = module_function(api, machine, wanted);
  }
  free(path);
}

/* Whether a function takes a cache: `main` takes all, `encode` those that it fills. */
static bool takes(const Bundle *bundle, FunctionName name, size_t cache) {
  return name == MAIN || bundle->generation.of_source[cache];
}

static void prepare_call(Model *model, FunctionName name, const TVMFFIAny *weights) {
  const Bundle *bundle = model->bundle;
  const Function *function = &bundle->functions[name];
  Call *prepared = &model->calls[name];
  if (function->name == NULL) return;
  for (size_t i = 0; i < bundle->generation.state_count; i++) prepared->cache_count += takes(bundle, name, i);
  size_t before_weights = function->input_count + prepared->cache_count, count = before_weights + bundle->weight_count;
  if (count > INT32_MAX) fail(EXIT_FAULT, "the bundle has too many tensors");
  prepared->argument_count = (int32_t)count;
  prepared->arguments = allocate(count, sizeof *prepared->arguments);
  if (bundle->weight_count > 0) {
    memcpy(prepared->arguments + before_weights, weights, bundle->weight_count * sizeof *weights);
  }
}

Model *model_open(const Bundle *bundle, const char *libraries, int threads) {
  Model *model = allocate(1, sizeof *model);
  char text[16];
  int set = threads > 0; /* --threads wins over the environment, which wins over our choice */
  if (threads < 1) threads = available_cores();
  snprintf(text, sizeof text, "%d", threads);
  setenv("TVM_NUM_THREADS", text, set);
  /* Without this TVM pins threads to the first cores, which other programs may be using. */
  setenv("TVM_BIND_THREADS", "0", 0);
  /* How often an idle worker looks for work before it sleeps: about a millisecond, not a tenth of a second. */
  setenv("TVM_THREAD_POOL_SPIN_COUNT", "2000", 0);
  model->bundle = bundle;
  open_api(&model->api, libraries);
  load_machine(model);
  model->array_size = global_function(&model->api, "ffi.ArraySize");
  model->array_item = global_function(&model->api, "ffi.ArrayGetItem");
  model->free_blocks = global_function(&model->api, "vm.builtin.memory_manager.clear");
  TVMFFIAny *weights = allocate(bundle->weight_count, sizeof *weights);
  for (size_t i = 0; i < bundle->weight_count; i++) weights[i] = wrap(&model->api, &bundle->weights[i]);
  size_t most_inputs = 0;
  for (int name = 0; name < FUNCTIONS; name++) {
    prepare_call(model, (FunctionName)name, weights);
    size_t inputs = bundle->functions[name].input_count;
    most_inputs = inputs > most_inputs ? inputs : most_inputs;
  }
  free(weights);
  model->sizes_per_shape = 1 + most_inputs * MAX_DIMENSIONS;
  model->seen_shapes = allocate(KEPT_SHAPES * model->sizes_per_shape, sizeof(int64_t));
  return model;
}

/* The allocator keeps every freed block for calls that need exactly its size, so texts of ever new lengths
 * would fill the memory: it is emptied when a ninth combination of input shapes comes along. */
static void note_shape(Model *model, FunctionName name, const Array *inputs) {
  size_t width = model->sizes_per_shape;
  int64_t *sizes = allocate(width, sizeof *sizes);
  sizes[0] = name;
  for (size_t i = 0; i < model->bundle->functions[name].input_count; i++) {
    memcpy(sizes + 1 + i * MAX_DIMENSIONS, inputs[i].shape, sizeof inputs[i].shape);
  }
  bool known = false;
  for (size_t i = 0; i < model->seen_count && !known; i++) {
    known = memcmp(model->seen_shapes + i * width, sizes, width * sizeof *sizes) == 0;
  }
  if (!known) {
    if (model->seen_count == KEPT_SHAPES) {
      call(&model->api, model->free_blocks, NULL, 0, "free memory");
      model->seen_count = 0;
    }
    memcpy(model->seen_shapes + model->seen_count++ * width, sizes, width * sizeof *sizes);
  }
  free(sizes);
}

static void read_output(const Api *api, TVMFFIAny item, const Spec *spec, Array *array) {
  if (item.type_index != kTVMFFITensor) fail(EXIT_FAULT, "output '%s' is no tensor", spec->name);
  const DLTensor *tensor = (const DLTensor *)((const char *)item.v_obj + sizeof(TVMFFIObject));
  bool fits = tensor->device.device_type == kDLCPU && tensor->ndim == spec->dimensions &&
              tensor->dtype.code == spec->type->code && tensor->dtype.bits == spec->type->bits &&
              tensor->dtype.lanes == 1;
  int64_t stride = 1;
  for (int i = spec->dimensions - 1; fits && i >= 0; i--) {
    fits = tensor->shape[i] > 0 && (spec->shape[i] < 0 || spec->shape[i] == tensor->shape[i]) &&
           (tensor->strides == NULL || tensor->shape[i] == 1 || tensor->strides[i] == stride);
    stride *= tensor->shape[i];
  }
  if (!fits) fail(EXIT_FAULT, "output '%s' has not the type and shape that the manifest says", spec->name);
  array->type = spec->type;
  array->dimensions = spec->dimensions;
  memcpy(array->shape, tensor->shape, (size_t)spec->dimensions * sizeof *array->shape);
  array->bytes = array_bytes(array->type, array->dimensions, array->shape, spec->name);
  array->data = (const char *)tensor->data + tensor->byte_offset;
  /* The tuple of outputs keeps the tensor alive. */
  api->release(item.v_obj);
}

/* Both functions take the same tensors; the object is released once, through the arguments of `main`. */
void model_use_state(Model *model, const State *state) {
  const Bundle *bundle = model->bundle;
  TVMFFIAny *of_main = model->calls[MAIN].arguments + bundle->functions[MAIN].input_count;
  TVMFFIAny *of_encode = model->calls[ENCODE].arguments;
  if (of_encode != NULL) of_encode += bundle->functions[ENCODE].input_count;
  for (size_t i = 0; i < bundle->generation.state_count; i++) {
    if (model->has_state) model->api.release(of_main[i].v_obj);
    if (state != NULL) of_main[i] = wrap(&model->api, &state->arrays[i]);
    if (of_encode != NULL && bundle->generation.of_source[i]) *of_encode++ = of_main[i];
  }
  model->has_state = state != NULL;
}

Outputs model_run(Model *model, FunctionName name, const Array *inputs) {
  const Api *api = &model->api;
  const Function *function = &model->bundle->functions[name];
  Call *prepared = &model->calls[name];
  /* What follows the outputs of `encode` are the caches that it was given. */
  size_t expected = function->output_count + (name == ENCODE ? prepared->cache_count : 0);
  note_shape(model, name, inputs);
  for (size_t i = 0; i < function->input_count; i++) prepared->arguments[i] = wrap(api, &inputs[i]);
  TVMFFIAny tuple = call(api, prepared->function, prepared->arguments, prepared->argument_count, "run the model");
  for (size_t i = 0; i < function->input_count; i++) api->release(prepared->arguments[i].v_obj);
  if (tuple.type_index != kTVMFFIArray) fail(EXIT_FAULT, "model.so did not return a list of outputs");
  int64_t count = call(api, model->array_size, &tuple, 1, "count outputs").v_int64;
  if (count != (int64_t)expected) {
    fail(EXIT_FAULT, "model.so returned %lld outputs, the manifest lists %zu", (long long)count, expected);
  }
  Outputs outputs = {allocate(function->output_count, sizeof(Array)), tuple.v_obj};
  for (size_t i = 0; i < function->output_count; i++) {
    TVMFFIAny arguments[2] = {tuple, any_integer((int64_t)i)};
    TVMFFIAny item = call(api, model->array_item, arguments, 2, "read an output");
    read_output(api, item, &function->outputs[i], &outputs.arrays[i]);
  }
  return outputs;
}

static void read_text(const TVMFFIAny *any, KernelEvent *event) {
  if (any->type_index == kTVMFFIRawStr) {
    event->name = any->v_c_str;
    event->length = strlen(any->v_c_str);
  } else if (any->type_index == kTVMFFISmallStr) {
    event->name = any->v_bytes;
    event->length = any->small_str_len;
  } else if (any->type_index == kTVMFFIStr) {
    const TVMFFIByteArray *text = (const TVMFFIByteArray *)((const char *)any->v_obj + sizeof(TVMFFIObject));
    event->name = text->data;
    event->length = text->size;
  }
}

static void add_bytes(const Bundle *bundle, const TVMFFIAny *any, KernelEvent *event) {
  if (any->type_index != kTVMFFITensor) return;
  const DLTensor *tensor = (const DLTensor *)((const char *)any->v_obj + sizeof(TVMFFIObject));
  size_t bytes = tensor->dtype.bits / 8u;
  for (int i = 0; i < tensor->ndim; i++) bytes *= (size_t)tensor->shape[i];
  event->bytes += bytes;
  if (bundle->weight_count == 0) return;
  const Array *first = &bundle->weights[0], *last = &bundle->weights[bundle->weight_count - 1];
  const char *data = tensor->data, *end = (const char *)last->data + last->bytes;
  if (data >= (const char *)first->data && data < end) event->weight_bytes += bytes;
}

/* The virtual machine gives: the function, its name, whether it is still to run, its result, its arguments. */
static int on_instrument(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result) {
  const Model *model = self;
  KernelEvent event = {.name = "", .before = count > 2 && arguments[2].v_int64 != 0};
  if (count > 1) read_text(&arguments[1], &event);
  for (int32_t i = 4; i < count; i++) add_bytes(model->bundle, &arguments[i], &event);
  model->watch(model->watch_context, &event);
  *result = any_integer(0); /* go on as usual */
  return 0;
}

void model_watch_kernels(Model *model, void (*watch)(void *context, const KernelEvent *event), void *context) {
  TVMFFIObjectHandle function = NULL;
  model->watch = watch;
  model->watch_context = context;
  if (model->api.new_function(model, on_instrument, NULL, &function) != 0) {
    fail_with_tvm_error(&model->api, "make a function");
  }
  TVMFFIAny argument = any_object(function);
  call(&model->api, model->set_instrument, &argument, 1, "watch the kernels");
  model->api.release(function);
}

void outputs_release(Model *model, Outputs *outputs) {
  model->api.release(outputs->owner);
  free(outputs->arrays);
  outputs->arrays = NULL;
}
