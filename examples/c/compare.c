/* Embeds two sentences and prints how similar they are: -1 to 1.
 *
 *   compare BUNDLE "A cat sat on the mat." "A kitten was sitting on a rug." */
#include <edgeq.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double cosine(const float *a, const float *b, size_t count) {
  double product = 0, squares_a = 0, squares_b = 0;
  for (size_t i = 0; i < count; i++) {
    product += (double)a[i] * b[i];
    squares_a += (double)a[i] * a[i];
    squares_b += (double)b[i] * b[i];
  }
  return product / sqrt(squares_a * squares_b);
}

int main(int count, char **arguments) {
  if (count != 4) {
    fprintf(stderr, "usage: compare BUNDLE TEXT TEXT\n");
    return 2;
  }
  edgeq_model *model = NULL;
  edgeq_session *session = NULL;
  int code = 1;
  if (edgeq_open(arguments[1], NULL, &model) != EDGEQ_OK) {
    fprintf(stderr, "%s\n", edgeq_error(model));
  } else if (edgeq_session_open(model, NULL, &session) != EDGEQ_OK) {
    fprintf(stderr, "%s\n", edgeq_session_error(session));
  } else {
    const edgeq_text texts[2] = {{.text = arguments[2], .size = strlen(arguments[2])},
                                 {.text = arguments[3], .size = strlen(arguments[3])}};
    size_t width = (size_t)edgeq_model_info(model)->width;
    float *vectors = calloc(2 * width, sizeof *vectors);
    if (vectors == NULL || edgeq_embed(session, texts, 2, 2, vectors, NULL) != EDGEQ_OK) {
      fprintf(stderr, "%s\n", vectors == NULL ? "out of memory" : edgeq_session_error(session));
    } else {
      printf("%.4f\n", cosine(vectors, vectors + width, width));
      code = 0;
    }
    free(vectors);
  }
  edgeq_session_close(session);
  edgeq_close(model);
  return code;
}
