#include "ranking.h"

#include <stdlib.h>

#include "options.h"
#include "vectors.h"

/* The best first, of equal ones the first first. */
static int by_score(const void *left, const void *right) {
  const edgeq_ranked *a = left, *b = right;
  if (a->score != b->score) return a->score > b->score ? -1 : 1;
  return a->index < b->index ? -1 : a->index > b->index;
}

void rank_documents(edgeq_session *session, const edgeq_text *query, const edgeq_text *documents, size_t count,
                    const edgeq_text_options *given, edgeq_ranked *ranked, edgeq_reading *readings) {
  const edgeq_model *model = session->model;
  Memory *memory = &session->call;
  edgeq_text_options options;
  edgeq_text_defaults(&options);
  take_options(&options, sizeof options, given);
  if (model->info.width != 1) {
    fail(memory, EDGEQ_USAGE, "documents are ranked by a model with one class, and this one has %lld; classify pairs",
         (long long)model->info.width);
  }
  edgeq_text *queries = allocate(memory, count, sizeof *queries);
  for (size_t i = 0; i < count; i++) {
    queries[i] = *query;
    queries[i].name = documents[i].name;
  }
  options.seconds = documents;
  float *logits = allocate(memory, count, sizeof *logits);
  run_texts(session, queries, count, &options, logits, readings);
  for (size_t i = 0; i < count; i++) {
    ranked[i].index = i;
    class_scores(model->texts.scores, &logits[i], 1, &ranked[i].score);
  }
  if (count > 1) qsort(ranked, count, sizeof *ranked, by_score);
}
