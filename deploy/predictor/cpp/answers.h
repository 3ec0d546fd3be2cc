// Logits to answers: classes, named entities, answer spans, as ernie_predictor/answers.py reads them.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "errors.h"

namespace ernie {

using Offsets = std::vector<std::pair<int32_t, int32_t>>;  // [start, end) in characters of the text

// A label with its confidence, an entity, or an answer.
struct Span {
  std::string text, label;
  int32_t start = 0, end = 0;  // characters of the original text, end exclusive
  double confidence = 1;
};

// Window of a context: logits of its pieces, of which the first is piece `first` of the context.
struct AnswerWindow {
  const float *start_logits, *end_logits;
  size_t size, first;
};

// The most likely label. `logits`: [classes].
Span read_class(const float* logits, const std::vector<std::string>& labels);

// Throws Error where tags are of no scheme that `read_entities` reads.
void check_tags(const std::vector<std::string>& tags);

// Named entities in order of appearance. `logits`: one [tags] per wordpiece.
std::vector<Span> read_entities(const std::vector<const float*>& logits, const std::vector<std::string>& labels,
                                std::string_view text, const Offsets& offsets);

// The likeliest spans of a context, at most `n_best_size`, best first, no text twice; one empty span where the context has
// no pieces. Confidences are shares of the best 20 spans, or of `n_best_size` if that is more. `max_answer_length` is in
// pieces.
std::vector<Span> read_answers(const std::vector<AnswerWindow>& windows, std::string_view context,
                               const Offsets& offsets, size_t n_best_size, size_t max_answer_length);

}  // namespace ernie
