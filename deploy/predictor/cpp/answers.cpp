#include "answers.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "unicode.h"

namespace ernie {
namespace {

// In double precision, so that large logits neither overflow nor round.
template <typename Number>
std::vector<double> softmax(const Number* logits, size_t size) {
  std::vector<double> shares(size);
  const double largest = *std::max_element(logits, logits + size);
  double sum = 0;
  for (size_t i = 0; i < size; ++i) sum += shares[i] = std::exp(logits[i] - largest);
  for (double& share : shares) share /= sum;
  return shares;
}

size_t largest(const std::vector<double>& values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

// ------------------------------------------------------------------------------------------------ tags

// What a tag's prefix says of its token; see answers.py.
constexpr std::string_view kBegin = "B", kInside = "IM", kEnd = "EL", kSingle = "SUW";

bool is_one_of(std::string_view letters, char c) { return letters.find(c) != letters.npos; }

bool is_prefix(char c) {
  return is_one_of(kBegin, c) || is_one_of(kInside, c) || is_one_of(kEnd, c) || is_one_of(kSingle, c);
}

bool has_prefix(const std::string& tag) { return tag.size() > 2 && tag[1] == '-' && is_prefix(tag[0]); }

// `B-PER` to ('B', "PER"); `PER`, a tag without a prefix, to ('I', "PER"); `O` to ('O', "").
std::pair<char, std::string> split_tag(const std::string& tag) {
  if (tag == "O") return {'O', ""};
  if (has_prefix(tag)) return {tag[0], tag.substr(2)};
  return {'I', tag};
}

// Other ways to write a prefix, which would pass for tags without one; also a prefix alone.
bool is_other_tag(const std::string& tag) {
  constexpr std::string_view kJoints = "-_:/";
  const bool begins = is_prefix(tag[0]) && (tag.size() == 1 || is_one_of(kJoints, tag[1]));
  const bool ends = tag.size() > 2 && is_prefix(tag.back()) && is_one_of(kJoints, tag[tag.size() - 2]);
  return begins || ends;
}

std::string capitalized(std::string tag) {
  for (char& c : tag) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  if (!tag.empty() && tag[0] >= 'a' && tag[0] <= 'z') tag[0] = static_cast<char>(tag[0] - 32);
  return tag;
}

struct TagSpan {
  std::string kind;
  size_t first, end;
};

// By the rules of conlleval: B- and S- always begin an entity, E- and S- end it; otherwise an entity continues as long as
// its kind is the same.
std::vector<TagSpan> entity_spans(const std::vector<std::string>& tags) {
  std::vector<TagSpan> spans;
  std::string current;
  bool is_open = false, has_ended = true;
  for (size_t i = 0; i < tags.size(); ++i) {
    const auto [prefix, kind] = split_tag(tags[i]);
    const bool begins = prefix == 'O' || is_one_of(kBegin, prefix) || is_one_of(kSingle, prefix);
    if (is_open && (has_ended || kind != current || begins)) is_open = false;
    if (!is_open && prefix != 'O') {
      spans.push_back({kind, i, i});
      current = kind;
      is_open = true;
    }
    if (is_open) spans.back().end = i + 1;
    has_ended = is_one_of(kEnd, prefix) || is_one_of(kSingle, prefix);
  }
  return spans;
}

// ------------------------------------------------------------------------------------------------ words

// A mask of the character's category in Unicode 13, as Python 3.10 has it: later characters are unassigned.
uint32_t category(char32_t c) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(c), age);
  return age[0] > 13 ? U_GC_CN_MASK : U_GET_GC_MASK(static_cast<UChar32>(c));
}

enum class CharacterKind { letter, digit, other };

// What a character makes up words with; `other` stands alone.
CharacterKind kind_of(char32_t c) {
  if ((c >= 0x3400 && c <= 0x9FFF) || (c >= 0xF900 && c <= 0xFAFF) || c >= 0x20000) return CharacterKind::other;
  const auto mask = category(c);
  if (mask == U_GC_CN_MASK) return CharacterKind::other;
  const auto numeric = u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE);
  if (numeric == U_NT_DECIMAL || numeric == U_NT_DIGIT) return CharacterKind::digit;
  const bool is_letter = (mask & (U_GC_L_MASK | U_GC_M_MASK)) != 0 || numeric == U_NT_NUMERIC;
  return is_letter ? CharacterKind::letter : CharacterKind::other;
}

// The end of the characters from `begin` on that are no white space: the tokenizer drops them.
int32_t dropped_until(std::u32string_view text, int32_t begin, int32_t end) {
  while (begin < end) {
    const char32_t c = text[static_cast<size_t>(begin)];
    if (c == '\t' || c == '\n' || c == '\r' || (category(c) & U_GC_Z_MASK) != 0) break;
    ++begin;
  }
  return begin;
}

struct Word {
  int32_t start, stop, end;  // what is dropped after the last piece lies between stop and end
  size_t piece;              // its first
};

// The words of a text, whose pieces share one tag: runs of letters, runs of digits, other characters one by one.
std::vector<Word> find_words(std::u32string_view text, const Offsets& offsets) {
  std::vector<Word> words;
  int32_t last = 0;
  for (size_t piece = 0; piece < offsets.size(); ++piece) {
    const auto [start, end] = offsets[piece];
    bool follows = !words.empty();
    if (!words.empty() && start > last) {
      words.back().end = dropped_until(text, last, start);
      follows = words.back().end == start;
    }
    const auto kind = kind_of(text[static_cast<size_t>(start)]);
    if (follows && kind != CharacterKind::other && kind_of(text[static_cast<size_t>(last - 1)]) == kind) {
      words.back().stop = words.back().end = end;
    } else {
      words.push_back({start, end, end, piece});
    }
    last = end;
  }
  if (!words.empty()) words.back().end = dropped_until(text, last, static_cast<int32_t>(text.size()));
  return words;
}

std::string slice(std::u32string_view text, int32_t start, int32_t end) {
  return encode_utf8(text.substr(static_cast<size_t>(start), static_cast<size_t>(end - start)));
}

// ------------------------------------------------------------------------------------------------ answers

constexpr size_t kCandidates = 20;  // answers that a confidence is a share of, however few of them are returned

// Indices of the n largest logits.
std::vector<size_t> top(const float* logits, size_t size, size_t n) {
  std::vector<size_t> order(size);
  std::iota(order.begin(), order.end(), size_t{0});
  if (size > n) {
    const auto middle = order.begin() + static_cast<std::ptrdiff_t>(n);
    std::nth_element(order.begin(), middle, order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    order.resize(n);
  }
  return order;
}

}  // namespace

Span read_class(const float* logits, const std::vector<std::string>& labels) {
  const auto probabilities = softmax(logits, labels.size());
  Span answer;
  const size_t best = largest(probabilities);
  answer.label = labels[best];
  answer.confidence = probabilities[best];
  return answer;
}

void check_tags(const std::vector<std::string>& tags) {
  std::set<std::string> names(tags.begin(), tags.end());
  const bool has_outside = names.erase("O") > 0;
  std::vector<std::string> prefixed, others;
  for (const auto& tag : names) (has_prefix(tag) ? prefixed : others).push_back(tag);
  const bool lower_case =
      std::all_of(others.begin(), others.end(), [](const auto& tag) { return has_prefix(capitalized(tag)); });
  auto wrong = std::find_if(others.begin(), others.end(), [&](const auto& tag) {
    return !prefixed.empty() || lower_case || is_other_tag(tag);
  });
  if (wrong == others.end() && !has_outside) wrong = others.begin();  // "no entity" has another name here
  if (wrong == others.end()) return;
  const auto beside = !prefixed.empty() ? " beside '" + prefixed[0] + "'" : has_outside ? "" : ", and none is 'O'";
  throw Error("unknown tag scheme: the tag '" + *wrong + "'" + beside +
              "; expected O and B-<kind>, I-<kind> (BIO), with E- and S- (BIOES), M-, E- and S- (BMES), L- and U- "
              "(BILOU), or <kind> alone");
}

std::vector<Span> read_entities(const std::vector<const float*>& logits, const std::vector<std::string>& labels,
                                std::string_view text, const Offsets& offsets) {
  const auto characters = decode_utf8(text);
  const auto words = find_words(characters, offsets);
  std::vector<std::string> tags;
  std::vector<double> confidences;
  for (const auto& word : words) {
    const auto probabilities = softmax(logits[word.piece], labels.size());
    const size_t best = largest(probabilities);
    tags.push_back(labels[best]);
    confidences.push_back(probabilities[best]);
  }
  std::vector<Span> entities;
  for (const auto& [kind, first, end] : entity_spans(tags)) {
    Span entity;
    entity.label = kind;
    entity.start = words[first].start;
    entity.end = words[end - 1].end;
    entity.text = slice(characters, entity.start, entity.end);
    entity.confidence = 0;
    for (size_t word = first; word < end; ++word) entity.confidence += confidences[word];
    entity.confidence /= static_cast<double>(end - first);
    entities.push_back(std::move(entity));
  }
  return entities;
}

std::vector<Span> read_answers(const std::vector<AnswerWindow>& windows, std::string_view context,
                               const Offsets& offsets, size_t n_best_size, size_t max_answer_length) {
  const auto characters = decode_utf8(context);
  // What the tokenizer drops after a piece, such as an accent, belongs to it.
  const auto stop = [&](size_t piece) {
    const bool is_last = piece + 1 == offsets.size();
    const int32_t limit = is_last ? static_cast<int32_t>(characters.size()) : offsets[piece + 1].first;
    const int32_t end = offsets[piece].second;
    return end >= limit ? end : dropped_until(characters, end, limit);
  };
  std::map<std::pair<int32_t, int32_t>, float> found;  // {(start, end): best score}
  // Takes the pairs of each window's `number` best starts and ends.
  const auto find = [&](size_t number) {
    for (const auto& window : windows) {
      const auto ends = top(window.end_logits, window.size, number);
      for (const size_t begin : top(window.start_logits, window.size, number)) {
        for (const size_t end : ends) {
          if (end < begin || end - begin >= max_answer_length) continue;
          const float score = window.start_logits[begin] + window.end_logits[end];
          const auto span = std::make_pair(offsets[window.first + begin].first, stop(window.first + end));
          const auto [place, is_new] = found.emplace(span, score);
          if (!is_new) place->second = std::max(place->second, score);
        }
      }
    }
  };
  const size_t count = std::max(n_best_size, kCandidates);
  find(count);
  if (found.empty()) {
    // All of the best ends lie before the best starts: look at every pair.
    size_t longest = 0;
    for (const auto& window : windows) longest = std::max(longest, window.size);
    find(longest);
  }
  if (found.empty()) return {Span()};
  // Equal scores: the earlier, shorter span, so that the order never depends on the windows.
  std::vector<std::pair<std::pair<int32_t, int32_t>, float>> ranked(found.begin(), found.end());
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::vector<Span> answers;
  std::vector<double> scores;
  std::set<std::string> texts;
  for (const auto& [span, score] : ranked) {
    Span answer;
    answer.text = slice(characters, span.first, span.second);
    if (!texts.insert(answer.text).second) continue;
    answer.start = span.first;
    answer.end = span.second;
    answers.push_back(std::move(answer));
    scores.push_back(score);
    if (answers.size() == count) break;
  }
  const auto confidences = softmax(scores.data(), scores.size());
  for (size_t i = 0; i < answers.size(); ++i) answers[i].confidence = confidences[i];
  answers.resize(std::min(answers.size(), n_best_size));
  return answers;
}

}  // namespace ernie
