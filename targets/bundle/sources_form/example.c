/* Checks the model, then runs a text: an embedding, scores of labels, or a generated text.
 *
 *   example model.edgeq "A cat sat on the mat." */
#include <edgeq.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libedgeq/program/linked_kernels.h"

static int32_t print_piece(void *context, const edgeq_piece *piece) {
  (void)context;
  fwrite(piece->text, 1, piece->text_size, stdout);
  return 0;
}

static edgeq_status run_text(edgeq_session *session, const edgeq_info *info, const char *text) {
  const edgeq_text given = {.text = text, .size = strlen(text)};
  if (info->context > 0) {
    edgeq_generation how;
    edgeq_generation_defaults(&how);
    how.max_new_tokens = 20;
    edgeq_status status = edgeq_generate(session, &given, 1, &how, print_piece, NULL);
    putchar('\n');
    return status;
  }
  float *values = calloc((size_t)info->width, sizeof *values);
  if (values == NULL) return EDGEQ_NO_MEMORY;
  edgeq_status status = strcmp(info->task, "classify") == 0
                            ? edgeq_classify(session, &given, 1, 1, values, NULL, NULL)
                            : edgeq_embed(session, &given, 1, 1, values, NULL);
  for (int64_t i = 0; status == EDGEQ_OK && i < info->width; i++) printf("%.9g\n", values[i]);
  free(values);
  return status;
}

int main(int count, char **arguments) {
  if (count < 2 || count > 3) {
    fprintf(stderr, "usage: example MODEL [TEXT]\n");
    return 2;
  }
  edgeq_open_options how = {.size = sizeof how};
  how.kernels = linked_kernels(&how.kernel_count);
  edgeq_model *model = NULL;
  edgeq_session *session = NULL;
  uint64_t values = 0;
  int code = 1;
  if (edgeq_open(arguments[1], &how, &model) != EDGEQ_OK) {
    fprintf(stderr, "%s\n", edgeq_error(model));
  } else if (edgeq_session_open(model, NULL, &session) != EDGEQ_OK ||
             edgeq_self_test(session, &values, NULL) != EDGEQ_OK ||
             (count == 3 && run_text(session, edgeq_model_info(model), arguments[2]) != EDGEQ_OK)) {
    fprintf(stderr, "%s\n", edgeq_session_error(session));
  } else {
    fprintf(stderr, "%llu values are right in every bit\n", (unsigned long long)values);
    code = 0;
  }
  edgeq_session_close(session);
  edgeq_close(model);
  return code;
}
