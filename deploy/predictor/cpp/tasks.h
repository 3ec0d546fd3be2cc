// The three tasks: texts to features, and logits to answers, as ernie_predictor/tasks/. No runtime.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "answers.h"
#include "config.h"
#include "json.h"
#include "tokenizer.h"

namespace ernie {

// What one answer is asked about, checked: a text, or two.
struct Pair {
  std::string first;
  std::optional<std::string> second;
};

// What the model reads: token_type_ids are 0 for the first `first_segment` ids, and 1 for the others.
struct Feature {
  std::vector<int32_t> input_ids;
  size_t first_segment;
};

// The model's outputs for one feature: [classes], or [length, tags], or start and end, [length] each.
using Logits = std::vector<std::vector<float>>;

// One label, entities in order of appearance, or answers, best first.
struct Answer {
  TaskKind kind;
  std::vector<Span> spans;
};

// One line of JSON, without a line break.
std::string to_json(const Answer& answer);

class Task {
 public:
  // Reads config.json and the tokenizer's files. `name`: the task that it must be, or empty; `max_seq_length`: tokens per
  // text, special tokens included, or 0: as trained. Throws Error.
  Task(const std::string& folder, const std::string& name, int max_seq_length);

  TaskKind kind() const { return config_.kind; }
  const Config& config() const { return config_; }
  int32_t pad_id() const { return tokenizer_.pad_id(); }
  bool takes_pairs() const { return config_.kind != TaskKind::token_cls && config_.text_pair.value_or(true); }
  std::string expected() const;

  // A text of a line, a line's two texts, or an object of JSON, as a Pair. Throws Error: a text is missing or empty.
  Pair check(std::u32string_view text) const;
  Pair check(const std::vector<std::u32string_view>& texts) const;
  Pair check(const Json& object) const;

  // What `read` needs to know of a pair. Windows: one for each feature, with the place of its first piece in the text;
  // pieces [first, end) are read there; they are at `position`, `position + 1`, ... of the feature.
  struct Window {
    size_t first, end, position;
  };
  struct Note {
    std::shared_ptr<const Encoding> encoding;
    std::vector<Window> windows;
  };

  // Appends features of some pairs, one or more per pair, in order; returns a note per pair. Thread-safe.
  std::vector<Note> tokenize(const std::vector<Pair>& pairs, std::vector<Feature>& features) const;

  // Answers from the outputs of the features of `tokenize`.
  std::vector<Answer> read(const std::vector<Pair>& pairs, const std::vector<Note>& notes,
                           const std::vector<Logits>& logits) const;

  // How many texts (for reading comprehension, questions) were truncated so far.
  size_t truncated() const { return truncated_; }
  // "text" or "question", and at how many tokens it is truncated.
  std::pair<std::string, size_t> limit() const;

 private:
  void check_number(bool has_second) const;
  void check_text(const std::string& name, std::u32string_view text) const;
  std::pair<std::u32string_view, std::u32string_view> names_of(const Json& object) const;
  Pair check_texts(std::u32string_view first, std::optional<std::u32string_view> second) const;
  Note classify(const Pair& pair, std::vector<Feature>& features) const;
  Note find_entities(const Pair& pair, std::vector<Feature>& features) const;
  Note find_answers(const Pair& pair, std::shared_ptr<const Encoding> context, std::vector<Feature>& features) const;

  Config config_;
  Tokenizer tokenizer_;
  size_t max_seq_length_;
  mutable std::atomic<size_t> truncated_{0};
};

}  // namespace ernie
