#include "tasks.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "characters.h"
#include "unicode.h"

namespace ernie {
namespace {

constexpr int kShortest = 8;  // tokens that a text may have at least, as in training

void append(std::vector<int32_t>& ids, const std::vector<int32_t>& more, size_t begin, size_t end) {
  const auto first = more.begin();
  ids.insert(ids.end(), first + static_cast<std::ptrdiff_t>(begin), first + static_cast<std::ptrdiff_t>(end));
}

// How many tokens each side of a pair keeps so that both together fit into `room`.
std::pair<size_t, size_t> longest_first(size_t length, size_t pair_length, size_t room) {
  const size_t half = room / 2;
  if (length + pair_length <= room) return {length, pair_length};
  if (pair_length <= half) return {room - pair_length, pair_length};
  if (length <= room - half) return {length, room - length};
  return {room - half, half};
}

void append_span(std::string& json, const Span& span, const char* name) {
  json += "{\"";
  json += name;
  json += "\": ";
  append_json(json, span.text);
  if (name == std::string_view("entity")) {
    json += ", \"label\": ";
    append_json(json, span.label);
  }
  json += ", \"start\": " + std::to_string(span.start) + ", \"end\": " + std::to_string(span.end) + ", \"confidence\": ";
  append_json(json, span.confidence);
}

void append_list(std::string& json, const std::vector<Span>& spans, const char* name) {
  json += '[';
  for (const auto& span : spans) {
    if (&span != &spans.front()) json += ", ";
    append_span(json, span, name);
    json += '}';
  }
  json += ']';
}

int checked_length(const std::string& folder, const Config& config, int length) {
  const int longest = config.max_position_embeddings > 0 ? config.max_position_embeddings : length;
  if (length < kShortest || length > longest) {
    throw UsageError("--max_seq_length " + std::to_string(length) + ": " + folder + " takes " +
                     std::to_string(kShortest) + " to " + std::to_string(longest) + " tokens");
  }
  return length;
}

Config checked_config(const std::string& folder, const std::string& name) {
  auto config = read_config(folder);
  if (!name.empty() && name != task_name(config.kind)) {
    throw UsageError("--task_name " + name + ": " + folder + " holds a model for " + task_name(config.kind) + " (" +
                     config.architecture + ")");
  }
  return config;
}

}  // namespace

std::string to_json(const Answer& answer) {
  std::string json;
  if (answer.kind == TaskKind::seq_cls) {
    json += "{\"label\": ";
    append_json(json, answer.spans[0].label);
    json += ", \"confidence\": ";
    append_json(json, answer.spans[0].confidence);
    json += '}';
  } else if (answer.kind == TaskKind::token_cls) {
    append_list(json, answer.spans, "entity");
  } else {
    append_span(json, answer.spans[0], "answer");
    json += ", \"n_best\": ";
    append_list(json, answer.spans, "answer");
    json += '}';
  }
  return json;
}

Task::Task(const std::string& folder, const std::string& name, int max_seq_length)
    : config_(checked_config(folder, name)),
      tokenizer_(folder),
      max_seq_length_(static_cast<size_t>(
          checked_length(folder, config_, max_seq_length > 0 ? max_seq_length : tokenizer_.model_max_length()))) {
  if (config_.vocab_size > 0 && tokenizer_.size() > config_.vocab_size) {
    throw Error(folder + ": vocab.txt has " + with_commas(static_cast<size_t>(tokenizer_.size())) +
                " entries, but the model takes ids below " + with_commas(static_cast<size_t>(config_.vocab_size)) +
                "; the files are of different models");
  }
  if (!config_.vocab_crc32.empty() && config_.vocab_crc32 != tokenizer_.vocab_crc32()) {
    throw Error(folder + ": its vocab.txt is not the one that the model was trained with");
  }
  if (config_.kind != TaskKind::token_cls) return;
  try {
    check_tags(config_.labels);
  } catch (const Error& e) {
    throw Error(folder + "/config.json, `id2label`: " + e.what());
  }
}

std::string Task::expected() const {
  switch (config_.kind) {
    case TaskKind::seq_cls:
      if (!config_.text_pair) return R"(a text, a pair of texts, or {"text": ..., "text_pair": ...})";
      return *config_.text_pair
                 ? R"(a pair of texts or {"text": ..., "text_pair": ...}, since the model was fine-tuned on pairs)"
                 : R"(a text or {"text": ...}, since the model was fine-tuned on single texts)";
    case TaskKind::token_cls:
      return R"(a text or {"text": ...})";
    default:
      return R"(a question and a context: a pair or {"question": ..., "context": ...})";
  }
}

std::pair<std::string, size_t> Task::limit() const {
  if (config_.kind != TaskKind::qa) return {"text", max_seq_length_};
  // A quarter of the window, at least, is the context's.
  const size_t longest = max_seq_length_ - 3 - std::max(max_seq_length_ / 4, size_t{1});
  return {"question", std::min(static_cast<size_t>(config_.max_query_length), longest)};
}

// ------------------------------------------------------------------------------------------------ input

void Task::check_text(const std::string& name, std::u32string_view text) const {
  const auto is_surrogate = [](char32_t c) { return c >= 0xD800 && c <= 0xDFFF; };
  if (text.empty() && config_.kind == TaskKind::qa && name == "question") return;
  if (strip(text).empty()) throw Error("`" + name + "` is empty");
  if (std::any_of(text.begin(), text.end(), is_surrogate)) {
    throw Error("`" + name + "` holds half of a surrogate pair, which is no character");
  }
}

// Throws Error where the model takes another number of texts.
void Task::check_number(bool has_second) const {
  const bool is_qa = config_.kind == TaskKind::qa;
  if (has_second && !takes_pairs()) throw Error("expected " + expected() + "; got two texts");
  if (!has_second && (is_qa || config_.text_pair.value_or(false))) {
    throw Error("expected " + expected() + "; there is no " + (is_qa ? "context" : "text_pair"));
  }
}

Pair Task::check_texts(std::u32string_view first, std::optional<std::u32string_view> second) const {
  const bool is_qa = config_.kind == TaskKind::qa;
  check_number(second.has_value());
  check_text(is_qa ? "question" : "text", first);
  if (!second) return {encode_utf8(first), std::nullopt};
  check_text(is_qa ? "context" : "text_pair", *second);
  return {encode_utf8(first), encode_utf8(*second)};
}

Pair Task::check(std::u32string_view text) const { return check_texts(text, std::nullopt); }

Pair Task::check(const std::vector<std::u32string_view>& texts) const {
  if (texts.size() == 2) return check_texts(texts[0], texts[1]);
  Json list;
  list.kind = Json::array;
  for (const auto& text : texts) list.items.push_back({Json::string, std::u32string(text), {}, {}});
  throw Error("expected " + expected() + "; got " + shown(list));
}

Pair Task::check(const Json& object) const {
  const auto names = names_of(object);
  const auto* first = object.find(names.first);
  const auto* second = names.second.empty() ? nullptr : object.find(names.second);
  const bool may_be_null = names.second != U"sentence2";
  if (may_be_null && second != nullptr && second->kind == Json::null) second = nullptr;
  if (first == nullptr) {
    std::u32string fields;
    for (const auto& key : object.keys) fields += (fields.empty() ? U"" : U", ") + key;
    throw Error("expected " + expected() + "; got the fields " + (fields.empty() ? "none" : encode_utf8(fields)));
  }
  check_number(second != nullptr);
  const auto text_of = [&](const Json* value, std::u32string_view key) -> std::u32string_view {
    const auto name = encode_utf8(key);
    if (value->kind != Json::string) throw Error("`" + name + "` is " + shown(*value) + ", expected a text");
    check_text(name, value->text);
    return value->text;
  };
  const auto text = text_of(first, names.first);
  if (second == nullptr) return check_texts(text, std::nullopt);
  return check_texts(text, text_of(second, names.second));
}

// The fields of an object that hold its texts; the second is empty where there is none. A classifier takes rows of training
// files, too, if they hold the texts as they are.
std::pair<std::u32string_view, std::u32string_view> Task::names_of(const Json& object) const {
  if (config_.kind == TaskKind::qa) return {U"question", U"context"};
  if (config_.kind == TaskKind::token_cls) return {U"text", U""};
  const auto has = [&](std::u32string_view name) { return object.find(name) != nullptr; };
  const bool is_single = has(U"sentence");
  if (is_single || (has(U"sentence1") && has(U"sentence2"))) {
    const std::u32string_view first = is_single ? U"sentence" : U"sentence1";
    if (has(U"text")) throw Error("it has `text` and `" + encode_utf8(first) + "`: leave out what is not meant");
    return {first, is_single ? U"" : U"sentence2"};
  }
  const auto* target = object.find(U"target");
  const bool has_marks = has(U"text") && target != nullptr && target->kind == Json::object;
  if (has_marks || (has(U"keyword") && has(U"abst"))) {
    throw Error("rows of CSL and CLUEWSC2020 are not read here: take infer_cpu.py");
  }
  return {U"text", U"text_pair"};
}

// ------------------------------------------------------------------------------------------------ features

std::vector<Task::Note> Task::tokenize(const std::vector<Pair>& pairs, std::vector<Feature>& features) const {
  std::vector<Note> notes;
  notes.reserve(pairs.size());
  // Many questions share a context: it is tokenized once.
  std::unordered_map<std::string_view, std::shared_ptr<const Encoding>> contexts;
  for (const auto& pair : pairs) {
    switch (config_.kind) {
      case TaskKind::seq_cls:
        notes.push_back(classify(pair, features));
        break;
      case TaskKind::token_cls:
        notes.push_back(find_entities(pair, features));
        break;
      default:
        auto& context = contexts[*pair.second];
        if (!context) context = std::make_shared<const Encoding>(tokenizer_.encode(*pair.second));
        notes.push_back(find_answers(pair, context, features));
    }
  }
  return notes;
}

Task::Note Task::classify(const Pair& pair, std::vector<Feature>& features) const {
  const auto first = tokenizer_.encode(pair.first).ids;
  const auto second = pair.second ? tokenizer_.encode(*pair.second).ids : std::vector<int32_t>();
  const size_t room = max_seq_length_ - (pair.second ? 3 : 2);
  const auto [keep, keep_second] = longest_first(first.size(), second.size(), room);
  Feature feature;
  feature.input_ids.reserve(keep + keep_second + 3);
  feature.input_ids.push_back(tokenizer_.cls_id());
  append(feature.input_ids, first, 0, keep);
  feature.input_ids.push_back(tokenizer_.sep_id());
  feature.first_segment = feature.input_ids.size();
  if (pair.second) {
    append(feature.input_ids, second, 0, keep_second);
    feature.input_ids.push_back(tokenizer_.sep_id());
  }
  if (keep + keep_second < first.size() + second.size()) ++truncated_;
  features.push_back(std::move(feature));
  return {};
}

// A text that is too long is cut into overlapping windows; a wordpiece takes its tag from the window in which it has most
// context.
Task::Note Task::find_entities(const Pair& pair, std::vector<Feature>& features) const {
  auto encoding = std::make_shared<const Encoding>(tokenizer_.encode(pair.first));
  const size_t length = encoding->ids.size(), room = max_seq_length_ - 2;
  // Half a window at most, so that each piece has a quarter of a window on both sides.
  const size_t step = std::min(static_cast<size_t>(config_.doc_stride), std::max(room / 2, size_t{1}));
  const size_t last = length > room ? length - room : 0;
  Note note{encoding, {}};
  for (size_t start = 0, first = 0;; start = std::min(start + step, last)) {
    const size_t next = std::min(start + step, last);
    const size_t end = start == last ? length : (start + next + room) / 2;
    Feature feature;
    feature.input_ids.push_back(tokenizer_.cls_id());
    append(feature.input_ids, encoding->ids, start, std::min(start + room, length));
    feature.input_ids.push_back(tokenizer_.sep_id());
    feature.first_segment = feature.input_ids.size();
    features.push_back(std::move(feature));
    note.windows.push_back({first, end, first - start + 1});
    if (start == last) return note;
    first = end;
  }
}

// A context that is too long is cut into overlapping windows, each after the question, which may be truncated.
Task::Note Task::find_answers(const Pair& pair, std::shared_ptr<const Encoding> context,
                              std::vector<Feature>& features) const {
  const auto question = tokenizer_.encode(pair.first).ids;
  const size_t query = std::min(question.size(), limit().second);
  const size_t room = max_seq_length_ - query - 3;
  // A longer stride would leave out tokens between two windows.
  const size_t step = std::min(static_cast<size_t>(config_.doc_stride), room);
  if (query < question.size()) ++truncated_;
  Note note{context, {}};
  for (size_t first = 0;; first += step) {
    const size_t end = std::min(first + room, context->ids.size());
    Feature feature;
    feature.input_ids.reserve(query + end - first + 3);
    feature.input_ids.push_back(tokenizer_.cls_id());
    append(feature.input_ids, question, 0, query);
    feature.input_ids.push_back(tokenizer_.sep_id());
    feature.first_segment = feature.input_ids.size();
    append(feature.input_ids, context->ids, first, end);
    feature.input_ids.push_back(tokenizer_.sep_id());
    features.push_back(std::move(feature));
    note.windows.push_back({first, end, query + 2});
    if (first + room >= context->ids.size()) return note;
  }
}

// ------------------------------------------------------------------------------------------------ answers

std::vector<Answer> Task::read(const std::vector<Pair>& pairs, const std::vector<Note>& notes,
                               const std::vector<Logits>& logits) const {
  std::vector<Answer> answers;
  answers.reserve(pairs.size());
  auto feature = logits.begin();
  for (size_t i = 0; i < pairs.size(); ++i) {
    const auto& [encoding, windows] = notes[i];
    if (config_.kind == TaskKind::seq_cls) {
      answers.push_back({config_.kind, {read_class((*feature++)[0].data(), config_.labels)}});
    } else if (config_.kind == TaskKind::token_cls) {
      std::vector<const float*> tags;
      tags.reserve(encoding->ids.size());
      for (const auto& window : windows) {
        const float* row = (*feature++)[0].data() + window.position * config_.labels.size();
        for (size_t piece = window.first; piece < window.end; ++piece, row += config_.labels.size()) {
          tags.push_back(row);
        }
      }
      answers.push_back({config_.kind, read_entities(tags, config_.labels, pairs[i].first, encoding->offsets)});
    } else {
      std::vector<AnswerWindow> found;
      for (const auto& window : windows) {
        const auto& outputs = *feature++;
        found.push_back({outputs[0].data() + window.position, outputs[1].data() + window.position,
                         window.end - window.first, window.first});
      }
      answers.push_back({config_.kind, read_answers(found, *pairs[i].second, encoding->offsets,
                                                    static_cast<size_t>(config_.n_best_size),
                                                    static_cast<size_t>(config_.max_answer_length))});
    }
  }
  return answers;
}

}  // namespace ernie
