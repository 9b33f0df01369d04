/* The library's one entry point. */
#include <stdlib.h>

#include "operator.h"
#include "threads.h"

enum { OPERATORS = 3 };

__attribute__((visibility("default"))) OrtStatus *RegisterCustomOps(OrtSessionOptions *options,
                                                                    const OrtApiBase *base) {
  const OrtApi *api = base->GetApi(ORT_API_VERSION);
  if (api == NULL) {
    const OrtApi *oldest = base->GetApi(1);
    return oldest->CreateStatus(ORT_FAIL, "edgeq's operators need ONNX Runtime 1.17 or later");
  }
  const Description *const descriptions[OPERATORS] = {&LINEAR, &EMBEDDING, &ATTENTION};
  connect_kernels();
  /* ONNX Runtime keeps pointers to these as long as any session lives, and does not say when the last one ends. */
  Operator *operators = calloc(OPERATORS, sizeof *operators);
  OrtCustomOpDomain *domain = NULL;
  if (operators == NULL) return api->CreateStatus(ORT_FAIL, "out of memory");
  OrtStatus *status = api->CreateCustomOpDomain("ai.edgeq", &domain);
  for (int i = 0; i < OPERATORS && status == NULL; i++) {
    describe(&operators[i], descriptions[i], api);
    status = api->CustomOpDomain_Add(domain, &operators[i].op);
  }
  return status != NULL ? status : api->AddCustomOpDomain(options, domain);
}
