#include "results.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"
#include "stop.h"

enum { TOGETHER = 256 }; /* texts that are checked before the first of them is run */

/* Texts that run together, without blank ones. */
typedef struct {
  const Text *texts[TOGETHER];
  edgeq_text firsts[TOGETHER], seconds[TOGETHER];
  edgeq_reading readings[TOGETHER];
  size_t count;
  bool has_pairs;
} Group;

/* What is the same for all texts. */
typedef struct {
  const edgeq_info *info;
  edgeq_session *session;
  const Options *options;
} Job;

static edgeq_text given_text(const Text *text) {
  return (edgeq_text){.text = text->ids != NULL ? NULL : text->text,
                      .size = text->size,
                      .ids = text->ids,
                      .id_count = text->count,
                      .name = text->name};
}

static void take_text(Group *group, const Text *text) {
  group->texts[group->count] = text;
  group->firsts[group->count] = given_text(text);
  group->seconds[group->count] = (edgeq_text){.text = text->second, .size = text->second_size, .name = text->name};
  group->has_pairs |= text->second != NULL;
  group->count++;
}

static edgeq_text_options reading_options(const Job *job, const Group *group) {
  edgeq_text_options options = job->options->reading;
  if (group->has_pairs) options.seconds = group->seconds;
  return options;
}

/* ---- what every line has ---- */

static void print_member(const char *name, const char *text, size_t size, bool is_first) {
  printf(is_first ? "\"%s\": " : ", \"%s\": ", name);
  print_json_text(text, size);
}

static void start_line(const Job *job, const Text *text, const edgeq_reading *reading) {
  bool answers = strcmp(job->info->task, "answer") == 0;
  if (!job->options->json) {
    if (reading->is_cut) fprintf(stderr, "%s was cut to %zu tokens\n", text->name, reading->tokens);
    return;
  }
  putchar('{');
  if (text->id != NULL) printf("\"id\": %.*s, ", (int)text->id_size, text->id);
  if (text->ids != NULL) {
    printf("\"line\": %zu", text->line);
  } else {
    print_member(answers && text->size > 0 ? "question" : "text", text->text, text->size, true);
    if (text->second != NULL) print_member(answers ? "context" : "text_pair", text->second, text->second_size, false);
  }
  printf(", \"tokens\": %zu", reading->tokens);
  if (reading->is_cut) fputs(", \"truncated\": true", stdout);
  if (reading->rows > 1) printf(", \"rows\": %zu", reading->rows);
}

static void end_line(const Job *job, const Text *text) {
  if (!job->options->json) return;
  if (text->fields != NULL) printf(", \"fields\": {%.*s}", (int)text->fields_size, text->fields);
  puts("}");
}

static void print_score(double score, bool json) {
  if (json) fputs("\"score\": ", stdout);
  print_double(score, json);
}

/* ---- embeddings and classes ---- */

static void run_embeddings(const Job *job, Group *group) {
  size_t width = (size_t)job->info->width;
  float *values = reserve(group->count * width, sizeof *values);
  const edgeq_text_options how = reading_options(job, group);
  check(edgeq_embed_texts(job->session, group->firsts, group->count, &how, values, group->readings), job->session);
  for (size_t i = 0; i < group->count; i++) {
    start_line(job, group->texts[i], &group->readings[i]);
    if (job->options->json) fputs(", \"embedding\": ", stdout);
    print_values(values + i * width, width, job->options->json);
    if (!job->options->json) puts("");
    end_line(job, group->texts[i]);
  }
  free(values);
}

/* The name of a class; `number` has room for one that has none. */
static const char *class_name(const edgeq_info *info, size_t index, char number[32]) {
  if (index < info->label_count) return info->labels[index];
  snprintf(number, 32, "LABEL_%zu", index);
  return number;
}

static bool names_differ(const edgeq_info *info, size_t classes) {
  char one[32], other[32];
  for (size_t i = 0; i < classes; i++) {
    for (size_t k = 0; k < i; k++) {
      if (strcmp(class_name(info, i, one), class_name(info, k, other)) == 0) return false;
    }
  }
  return true;
}

/* The scores of all classes by name, or as a list where two have one name. */
static void print_scores(const edgeq_info *info, const double *scores, size_t classes) {
  bool by_name = names_differ(info, classes);
  char number[32];
  fputs(by_name ? ", \"scores\": {" : ", \"scores\": [", stdout);
  for (size_t k = 0; k < classes; k++) {
    const char *name = class_name(info, k, number);
    if (k > 0) fputs(", ", stdout);
    if (!by_name) fputs("{\"label\": ", stdout);
    print_json_text(name, strlen(name));
    fputs(by_name ? ": " : ", \"score\": ", stdout);
    print_double(scores[k], true);
    if (!by_name) putchar('}');
  }
  putchar(by_name ? '}' : ']');
}

static void run_classes(const Job *job, Group *group) {
  size_t width = (size_t)job->info->width;
  float *logits = reserve(group->count * width, sizeof *logits);
  double *scores = reserve(group->count * width, sizeof *scores);
  const edgeq_text_options how = reading_options(job, group);
  check(edgeq_classify_texts(job->session, group->firsts, group->count, &how, logits, scores, group->readings), job->session);
  for (size_t i = 0; i < group->count; i++) {
    const double *own = scores + i * width;
    size_t best = 0;
    char number[32];
    for (size_t k = 1; k < width; k++) best = own[k] > own[best] ? k : best;
    const char *label = class_name(job->info, best, number);
    start_line(job, group->texts[i], &group->readings[i]);
    if (job->options->json) {
      print_member("label", label, strlen(label), false);
      fputs(", ", stdout);
      print_score(own[best], true);
      print_scores(job->info, own, width);
    } else {
      printf("%s %.6f\n", label, own[best]);
    }
    end_line(job, group->texts[i]);
  }
  free(logits);
  free(scores);
}

/* ---- parts, answers, tokens for masks ---- */

static void print_entity(const edgeq_entity *entity, bool json, bool has_index) {
  if (!json) {
    printf("%zu-%zu %s %.6f %.*s\n", entity->start, entity->end, entity->label, entity->score, (int)entity->word_size,
           entity->word);
    return;
  }
  putchar('{');
  print_member(has_index ? "entity" : "entity_group", entity->label, strlen(entity->label), true);
  fputs(", ", stdout);
  print_score(entity->score, true);
  if (has_index) printf(", \"index\": %zu", entity->index);
  print_member("word", entity->word, entity->word_size, false);
  printf(", \"start\": %zu, \"end\": %zu}", entity->start, entity->end);
}

static void run_tags(const Job *job, Group *group) {
  edgeq_entities *found = reserve(group->count, sizeof *found);
  const edgeq_text_options how = reading_options(job, group);
  const edgeq_tag_options *tagging = &job->options->tagging;
  check(edgeq_tag(job->session, group->firsts, group->count, &how, tagging, found, group->readings), job->session);
  for (size_t i = 0; i < group->count; i++) {
    start_line(job, group->texts[i], &group->readings[i]);
    if (job->options->json) fputs(", \"entities\": [", stdout);
    for (size_t k = 0; k < found[i].count; k++) {
      if (k > 0 && job->options->json) fputs(", ", stdout);
      print_entity(&found[i].items[k], job->options->json, tagging->aggregation == EDGEQ_TAG_NONE);
    }
    fputs(job->options->json ? "]" : "\n", stdout);
    end_line(job, group->texts[i]);
  }
  free(found);
}

static void run_answers(const Job *job, Group *group) {
  edgeq_answers *found = reserve(group->count, sizeof *found);
  bool json = job->options->json;
  const edgeq_text_options how = reading_options(job, group);
  check(edgeq_find_answers(job->session, group->firsts, group->count, &how, &job->options->answering, found, group->readings),
        job->session);
  for (size_t i = 0; i < group->count; i++) {
    start_line(job, group->texts[i], &group->readings[i]);
    if (json) fputs(", \"answers\": [", stdout);
    for (size_t k = 0; k < found[i].count; k++) {
      const edgeq_answer *answer = &found[i].items[k];
      if (!json) {
        printf("%.6f %.*s\n", answer->score, (int)answer->text_size, answer->text);
        continue;
      }
      fputs(k > 0 ? ", {" : "{", stdout);
      print_score(answer->score, true);
      printf(", \"start\": %zu, \"end\": %zu", answer->start, answer->end);
      print_member("answer", answer->text, answer->text_size, false);
      putchar('}');
    }
    if (json) putchar(']');
    end_line(job, group->texts[i]);
  }
  free(found);
}

static void print_mask(const edgeq_filling *items, size_t count, bool json) {
  if (json) putchar('[');
  for (size_t i = 0; i < count; i++) {
    const edgeq_filling *filling = &items[i];
    if (!json) {
      printf("%.6f %.*s: %.*s\n", filling->score, (int)filling->text_size, filling->text, (int)filling->sequence_size,
             filling->sequence);
      continue;
    }
    fputs(i > 0 ? ", {" : "{", stdout);
    print_score(filling->score, true);
    printf(", \"token\": %lld", (long long)filling->token);
    print_member("token_str", filling->text, filling->text_size, false);
    print_member("sequence", filling->sequence, filling->sequence_size, false);
    putchar('}');
  }
  if (json) putchar(']');
}

static void run_fillings(const Job *job, Group *group) {
  edgeq_fillings *found = reserve(group->count, sizeof *found);
  bool json = job->options->json;
  const edgeq_text_options how = reading_options(job, group);
  check(edgeq_fill(job->session, group->firsts, group->count, &how, &job->options->filling, found, group->readings), job->session);
  for (size_t i = 0; i < group->count; i++) {
    start_line(job, group->texts[i], &group->readings[i]);
    bool several = found[i].masks > 1;
    if (json) fputs(several ? ", \"fillings\": [" : ", \"fillings\": ", stdout);
    for (size_t mask = 0; mask < found[i].masks; mask++) {
      if (mask > 0) fputs(json ? ", " : "\n", stdout);
      print_mask(found[i].items + mask * found[i].per_mask, found[i].per_mask, json);
    }
    if (json && several) putchar(']');
    end_line(job, group->texts[i]);
  }
  free(found);
}

/* ---- all texts ---- */

static void (*runner_of(const edgeq_info *info))(const Job *job, Group *group) {
  static const struct {
    const char *task;
    void (*run)(const Job *job, Group *group);
  } known[] = {{"classify", run_classes}, {"tag", run_tags}, {"answer", run_answers}, {"fill", run_fillings}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(known[i].task, info->task) == 0) return known[i].run;
  }
  return run_embeddings;
}

/* A blank line keeps its place. */
static void print_blank(const Job *job, const Text *text) {
  const edgeq_reading none = {0};
  start_line(job, text, &none);
  if (!job->options->json) puts("");
  end_line(job, text);
}

void print_results(const edgeq_model *model, edgeq_session *session, const Texts *texts, const Options *options) {
  const Job job = {edgeq_model_info(model), session, options};
  Group *group = reserve(1, sizeof *group);
  for (size_t start = 0, end; start < texts->count; start = end) {
    *group = (Group){.count = 0};
    for (end = start; end < texts->count && group->count < TOGETHER; end++) {
      const Text *text = &texts->items[end];
      bool blank = text->ids == NULL && text->size == 0;
      if (blank && group->count > 0) break; /* lines are printed in order */
      if (!blank) take_text(group, text);
      if (blank) print_blank(&job, text);
    }
    if (group->count > 0) runner_of(job.info)(&job, group);
  }
  free(group);
}

void print_tokens(edgeq_session *session, const Texts *texts, const Options *options) {
  for (size_t i = 0; i < texts->count; i++) {
    const Text *text = &texts->items[i];
    const edgeq_text first = given_text(text), second = {.text = text->second, .size = text->second_size, .name = text->name};
    edgeq_text_options how = options->reading;
    edgeq_encoding encoding = {NULL, 0, {0}};
    size_t number = 0;
    if (text->second != NULL) how.seconds = &second;
    if (text->size > 0) check(edgeq_encode(session, &first, &how, &encoding), session);
    if (options->json) printf("{\"line\": %zu, \"ids\": [", text->line);
    for (size_t row = 0; row < encoding.count; row++) {
      for (size_t at = 0; at < encoding.rows[row].count; at++) {
        printf(number++ == 0 ? "%lld" : options->json ? ", %lld" : " %lld", (long long)encoding.rows[row].tokens[at].id);
      }
    }
    puts(options->json ? "]}" : "");
  }
}

void print_ranks(edgeq_session *session, const Texts *documents, const Options *options) {
  const edgeq_text query = {.text = options->query, .size = strlen(options->query), .name = "the query"};
  size_t count = 0;
  edgeq_text *given = reserve(documents->count, sizeof *given);
  const Text **texts = reserve(documents->count, sizeof *texts);
  for (size_t i = 0; i < documents->count; i++) {
    if (documents->items[i].size == 0) continue;
    texts[count] = &documents->items[i];
    given[count++] = given_text(&documents->items[i]);
  }
  edgeq_ranked *ranked = reserve(count, sizeof *ranked);
  edgeq_reading *readings = reserve(count, sizeof *readings);
  check(edgeq_rank(session, &query, given, count, &options->reading, ranked, readings), session);
  for (size_t i = 0; i < count && (options->top_k < 0 || i < (size_t)options->top_k); i++) {
    const Text *text = texts[ranked[i].index]; /* its number counts blank lines too */
    const edgeq_reading *reading = &readings[ranked[i].index];
    if (!options->json) {
      if (reading->is_cut) fprintf(stderr, "%s was cut to %zu tokens\n", text->name, reading->tokens);
      printf("%.6f %.*s\n", ranked[i].score, (int)text->size, text->text);
      continue;
    }
    printf("{\"corpus_id\": %zu, ", text->line - 1);
    print_score(ranked[i].score, true);
    print_member("text", text->text, text->size, false);
    printf(", \"tokens\": %zu%s}\n", reading->tokens, reading->is_cut ? ", \"truncated\": true" : "");
  }
  free(given);
  free(texts);
  free(ranked);
  free(readings);
}
