// C++17 on top of edgeq.h, header only: handles that close themselves, errors as exceptions, std::function for callbacks.
// With C++20 spans are std::span, else a type of the same kind.
#ifndef EDGEQ_HPP
#define EDGEQ_HPP

#include <cmath>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if __cplusplus >= 202002L
#include <span>
#endif

#include "edgeq.h"

namespace edgeq {

#if __cplusplus >= 202002L
template <typename T>
using span = std::span<T>;
#else
/// A run of values that belong to somebody else.
template <typename T>
class span {
 public:
  span() = default;
  span(T *data, std::size_t size) : data_(data), size_(size) {}
  span(std::vector<std::remove_const_t<T>> &values) : data_(values.data()), size_(values.size()) {}
  template <typename U = T, typename = std::enable_if_t<std::is_const_v<U>>>
  span(const std::vector<std::remove_const_t<T>> &values) : data_(values.data()), size_(values.size()) {}
  T *data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T *begin() const { return data_; }
  T *end() const { return data_ + size_; }
  T &operator[](std::size_t at) const { return data_[at]; }

 private:
  T *data_ = nullptr;
  std::size_t size_ = 0;
};
#endif

/// What a function of the library could not do; `what()` is its sentence.
class error : public std::runtime_error {
 public:
  error(edgeq_status status, const char *sentence) : std::runtime_error(sentence), status_(status) {}
  edgeq_status status() const noexcept { return status_; }

 private:
  edgeq_status status_;
};

/// A bundle, opened. Threads and sessions share it; copies are the same model.
class model {
 public:
  explicit model(const std::string &path, const edgeq_open_options *options = nullptr) {
    edgeq_model *opened = nullptr;
    edgeq_status status = edgeq_open(path.c_str(), options, &opened);
    handle_.reset(opened, edgeq_close);
    if (status != EDGEQ_OK) throw error(status, edgeq_error(opened));
  }

  /// A packed bundle in memory, which the caller keeps as long as the model.
  model(span<const std::byte> data, const edgeq_open_options *options = nullptr) {
    edgeq_model *opened = nullptr;
    edgeq_status status = edgeq_open_memory(data.data(), data.size(), options, &opened);
    handle_.reset(opened, edgeq_close);
    if (status != EDGEQ_OK) throw error(status, edgeq_error(opened));
  }

  const edgeq_info &info() const { return *edgeq_model_info(handle_.get()); }

  std::string_view manifest() const {
    std::size_t size = 0;
    const char *text = edgeq_manifest(handle_.get(), &size);
    return {text, size};
  }

  edgeq_model *get() const { return handle_.get(); }

 private:
  std::shared_ptr<edgeq_model> handle_;
};

/// A class with its probability.
struct label {
  std::string name;
  double score;
};

/// A part of a text with its label; places are code points.
struct entity {
  std::string label, word;
  double score;
  std::size_t start, end;
};

/// An answer as it stands in its context.
struct answer {
  std::string text;
  double score;
  std::size_t start, end;
};

/// A token for a mask, and the text with it.
struct filling {
  std::int64_t token;
  double score;
  std::string text, sequence;
};

/// A document by its number, with how well it fits.
struct ranked {
  std::size_t index;
  double score;
};

/// How texts are read: what is not changed is as the model says.
struct reading : edgeq_text_options {
  reading() { edgeq_text_defaults(this); }
};

/// How texts are made: what is not changed is as the model says.
struct generation : edgeq_generation {
  generation() { edgeq_generation_defaults(this); }
};

/// A generated text.
struct generated {
  std::string text;
  std::vector<std::int64_t> ids;
  int finish;
  double score;  // NaN without beam search
};

/// Runs a model; one thread at a time uses a session.
class session {
 public:
  explicit session(model of, int threads = 0) : session(std::move(of), options_of(threads)) {}

  session(model of, edgeq_session_options options) : model_(std::move(of)) {
    edgeq_session *opened = nullptr;
    options.size = sizeof options;
    edgeq_status status = edgeq_session_open(model_.get(), &options, &opened);
    handle_.reset(opened);
    if (status != EDGEQ_OK) throw error(status, edgeq_session_error(opened));
  }

  const model &of() const { return model_; }
  edgeq_session *get() const { return handle_.get(); }

  std::vector<std::int64_t> tokenize(std::string_view text) {
    const edgeq_text given = text_of(text);
    const std::int64_t *ids = nullptr;
    std::size_t count = 0;
    check(edgeq_tokenize(get(), &given, &ids, &count));
    return {ids, ids + count};
  }

  std::string detokenize(span<const std::int64_t> ids) {
    const char *text = nullptr;
    std::size_t size = 0;
    check(edgeq_detokenize(get(), ids.data(), ids.size(), &text, &size));
    return {text, size};
  }

  /// One vector a text.
  std::vector<std::vector<float>> embed(span<const std::string_view> texts, std::size_t batch = 16) {
    std::vector<edgeq_text> given = texts_of(texts);
    std::size_t width = static_cast<std::size_t>(model_.info().width);
    std::vector<float> values(given.size() * width);
    check(edgeq_embed(get(), given.data(), given.size(), batch, values.data(), nullptr));
    std::vector<std::vector<float>> vectors;
    for (std::size_t i = 0; i < given.size(); i++) {
      vectors.emplace_back(values.begin() + static_cast<std::ptrdiff_t>(i * width),
                           values.begin() + static_cast<std::ptrdiff_t>((i + 1) * width));
    }
    return vectors;
  }

  std::vector<float> embed(std::string_view text) { return embed(span<const std::string_view>(&text, 1)).front(); }

  /// The most likely class of a text.
  label classify(std::string_view text, reading how = {}) {
    const edgeq_text given = text_of(text);
    const edgeq_info &info = model_.info();
    std::size_t width = static_cast<std::size_t>(info.width), best = 0;
    std::vector<float> logits(width);
    std::vector<double> scores(width);
    check(edgeq_classify_texts(get(), &given, 1, &how, logits.data(), scores.data(), nullptr));
    for (std::size_t k = 1; k < width; k++) best = logits[k] > logits[best] ? k : best;
    std::string name = best < info.label_count ? info.labels[best] : "LABEL_" + std::to_string(best);
    return {name, scores[best]};
  }

  /// The most likely class of a pair of texts.
  label classify(std::string_view first, std::string_view second, reading how = {}) {
    const edgeq_text other = text_of(second);
    how.seconds = &other;
    return classify(first, how);
  }

  /// Parts of a text with their labels.
  std::vector<entity> tag(std::string_view text, std::int32_t aggregation = EDGEQ_TAG_SIMPLE, const reading &how = {}) {
    const edgeq_text given = text_of(text);
    edgeq_tag_options tagging;
    edgeq_tag_defaults(&tagging);
    tagging.aggregation = aggregation;
    edgeq_entities found{};
    check(edgeq_tag(get(), &given, 1, &how, &tagging, &found, nullptr));
    std::vector<entity> entities;
    for (std::size_t i = 0; i < found.count; i++) {
      const edgeq_entity &one = found.items[i];
      entities.push_back({one.label, {one.word, one.word_size}, one.score, one.start, one.end});
    }
    return entities;
  }

  /// Answers to a question in a context, the best first.
  std::vector<answer> find_answers(std::string_view question, std::string_view context, std::int64_t most = 1,
                                   reading how = {}) {
    const edgeq_text given = text_of(question), other = text_of(context);
    edgeq_answer_options answering;
    edgeq_answer_defaults(&answering);
    answering.top_k = most;
    how.seconds = &other;
    edgeq_answers found{};
    check(edgeq_find_answers(get(), &given, 1, &how, &answering, &found, nullptr));
    std::vector<answer> answers;
    for (std::size_t i = 0; i < found.count; i++) {
      const edgeq_answer &one = found.items[i];
      answers.push_back({{one.text, one.text_size}, one.score, one.start, one.end});
    }
    return answers;
  }

  /// Tokens for each mask of a text, the best first.
  std::vector<std::vector<filling>> fill(std::string_view text, std::int64_t most = 5, const reading &how = {}) {
    const edgeq_text given = text_of(text);
    edgeq_fill_options options;
    edgeq_fill_defaults(&options);
    options.top_k = most;
    edgeq_fillings found{};
    check(edgeq_fill(get(), &given, 1, &how, &options, &found, nullptr));
    std::vector<std::vector<filling>> masks(found.masks);
    for (std::size_t i = 0; i < found.masks * found.per_mask; i++) {
      const edgeq_filling &one = found.items[i];
      masks[i / found.per_mask].push_back(
          {one.token, one.score, {one.text, one.text_size}, {one.sequence, one.sequence_size}});
    }
    return masks;
  }

  /// Documents by how well they fit a query, the best first.
  std::vector<ranked> rank(std::string_view query, span<const std::string_view> documents, const reading &how = {}) {
    const edgeq_text given = text_of(query);
    std::vector<edgeq_text> texts = texts_of(documents);
    std::vector<edgeq_ranked> order(texts.size());
    check(edgeq_rank(get(), &given, texts.data(), texts.size(), &how, order.data(), nullptr));
    std::vector<ranked> found;
    for (const edgeq_ranked &one : order) found.push_back({one.index, one.score});
    return found;
  }

  /// Continues a prompt, or rewrites a source. `on_piece` gets the text as it comes, and ends it by returning false.
  generated generate(std::string_view text, const generation &how = {},
                     std::function<bool(std::string_view)> on_piece = nullptr) {
    struct context {
      std::function<bool(std::string_view)> on_piece;
      std::exception_ptr thrown;
    } own{std::move(on_piece), nullptr};
    const edgeq_text given = text_of(text);
    auto forward = [](void *pointer, const edgeq_piece *piece) -> std::int32_t {
      context &to = *static_cast<context *>(pointer);
      try {
        return !to.on_piece || to.on_piece({piece->text, piece->text_size}) ? 0 : 1;
      } catch (...) {  // not through the library, which knows no exceptions
        to.thrown = std::current_exception();
        return 1;
      }
    };
    edgeq_status status = edgeq_generate(get(), &given, 1, &how, forward, &own);
    if (own.thrown) std::rethrow_exception(own.thrown);
    if (status != EDGEQ_CANCELLED) check(status);
    edgeq_generated made;
    check(edgeq_generate_result(get(), 0, &made));
    return {{made.text, made.text_size}, {made.ids, made.ids + made.id_count}, made.finish, made.score};
  }

  /// Ends a call that runs in another thread.
  void cancel() { edgeq_cancel(get()); }

  /// Runs a function on tensors; the outputs' data is the session's and valid until its next call.
  std::vector<edgeq_tensor> run(std::int32_t function, span<const edgeq_tensor> inputs) {
    if (inputs.size() != edgeq_input_count(model_.get(), function)) {
      throw error(EDGEQ_USAGE, "the function takes another number of inputs");
    }
    std::vector<edgeq_tensor> outputs(edgeq_output_count(model_.get(), function));
    check(edgeq_run(get(), function, inputs.data(), outputs.data()));
    return outputs;
  }

  void self_test() { check(edgeq_self_test(get(), nullptr, nullptr)); }

 private:
  struct closer {
    void operator()(edgeq_session *handle) const { edgeq_session_close(handle); }
  };

  static edgeq_session_options options_of(int threads) {
    edgeq_session_options options{};
    options.threads = threads;
    return options;
  }

  static edgeq_text text_of(std::string_view text) {
    edgeq_text given{};
    given.text = text.data() != nullptr ? text.data() : "";
    given.size = text.size();
    return given;
  }

  static std::vector<edgeq_text> texts_of(span<const std::string_view> texts) {
    std::vector<edgeq_text> given;
    for (std::string_view text : texts) given.push_back(text_of(text));
    return given;
  }

  void check(edgeq_status status) const {
    if (status == EDGEQ_BUSY) throw error(status, "another thread uses the session");
    if (status != EDGEQ_OK) throw error(status, edgeq_session_error(get()));
  }

  model model_;  // is closed after the session
  std::unique_ptr<edgeq_session, closer> handle_;
};

}  // namespace edgeq

#endif
