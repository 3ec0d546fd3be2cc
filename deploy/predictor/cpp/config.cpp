#include "config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>

#include "json.h"
#include "unicode.h"

namespace ernie {
namespace {

constexpr char kExpected[] = R"(expected the names of all classes, as {"0": "name", "1": "name", ...})";

struct TaskNames {
  TaskKind kind;
  const char *name, *architecture, *params;
};
constexpr TaskNames kTasks[] = {
    {TaskKind::seq_cls, "seq_cls", "SequenceClassification", "text-classification"},
    {TaskKind::token_cls, "token_cls", "TokenClassification", "token-classification"},
    {TaskKind::qa, "qa", "QuestionAnswering", "question-answering"},
};

// The number of a class, written as a number or as a text.
std::optional<long> number_of(const Json& value) {
  const bool is_number = value.kind == Json::integer || value.kind == Json::string;
  const auto is_digit = [](char32_t c) { return c >= '0' && c <= '9'; };
  const bool is_decimal = !value.text.empty() && value.text.size() < 10 &&
                          std::all_of(value.text.begin(), value.text.end(), is_digit);
  if (!is_number || !is_decimal) return std::nullopt;
  return std::stol(encode_utf8(value.text));
}

std::string name_of(const Json& label, const std::string& where) {
  const auto is_space = [](char32_t c) { return c == ' ' || (c >= '\t' && c <= '\r') || c == 0x3000; };
  const bool is_named = label.kind == Json::boolean || label.kind == Json::integer || label.kind == Json::real ||
                        (label.kind == Json::string && !std::all_of(label.text.begin(), label.text.end(), is_space));
  if (!is_named) throw Error(where + " calls a class " + shown(label) + "; " + kExpected);
  return encode_utf8(label.text);
}

// Names of classes in their order: of a list, of {"0": "name"} or of {"name": 0}, the last first if both could be meant
// and `prefers_names`. Classes may count from 1.
std::vector<std::string> class_names(const Json* found, const std::string& where, bool prefers_names) {
  if (found == nullptr || found->items.empty()) return {};
  std::vector<Json> keys;
  for (const auto& key : found->keys) keys.push_back({Json::string, key, {}, {}});
  const auto all_numbers = [](const std::vector<Json>& values) {
    return std::all_of(values.begin(), values.end(), [](const Json& value) { return number_of(value).has_value(); });
  };
  const bool by_number = found->kind == Json::object && all_numbers(keys);
  const bool by_name = found->kind == Json::object && all_numbers(found->items) && (prefers_names || !by_number);
  if (found->kind == Json::object && !by_number && !by_name) throw Error(where + " is " + shown(*found) + "; " + kExpected);
  std::vector<std::pair<long, std::string>> classes;
  for (size_t i = 0; i < found->items.size(); ++i) {
    const Json& item = found->items[i];
    if (found->kind == Json::array) {
      classes.emplace_back(i, name_of(item, where));
    } else if (by_name) {
      classes.emplace_back(*number_of(item), name_of(keys[i], where));
    } else {
      classes.emplace_back(*number_of(keys[i]), name_of(item, where));
    }
  }
  std::sort(classes.begin(), classes.end());
  std::vector<std::string> names;
  for (const auto& [number, name] : classes) {
    const long expected = std::min(classes.front().first, 1L) + static_cast<long>(names.size());
    if (number != expected) throw Error(where + " has no class " + std::to_string(expected) + "; " + kExpected);
    if (std::find(names.begin(), names.end(), name) != names.end()) {
      throw Error(where + " calls two classes '" + name + "'; " + kExpected);
    }
    names.push_back(name);
  }
  return names;
}

std::string list_of_files(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.insert(entry.path().filename().string());
  std::string text;
  int number = 0;
  for (const auto& name : names) {
    if (++number > 8) break;
    text += (text.empty() ? "" : ", ") + name;
  }
  return text.empty() ? "nothing" : text;
}

Json read_json(const std::string& folder) {
  const auto path = folder + "/config.json";
  if (!std::filesystem::is_directory(folder)) {
    throw Error("--model_path " + folder + ": no such folder; expected one that run_*.py --do_export wrote");
  }
  if (!std::filesystem::exists(path)) {
    throw Error("--model_path " + folder + " is no model folder: it has no config.json (it holds " +
                list_of_files(folder) + ")");
  }
  std::ifstream file(path, std::ios::binary);
  const std::string content((std::istreambuf_iterator<char>(file)), {});
  if (!file) throw Error(path + ": cannot be read");
  Json config;
  try {
    config = parse_json(decode_utf8(content));
  } catch (const Error& e) {
    throw Error(path + " is not JSON: " + e.what());
  }
  if (config.kind != Json::object) throw Error(path + ": expected a JSON object");
  return config;
}

}  // namespace

std::string task_name(TaskKind kind) { return kTasks[static_cast<size_t>(kind)].name; }

Config read_config(const std::string& folder) {
  const Json json = read_json(folder);
  const auto path = folder + "/config.json";
  Config config;

  const Json* architectures = json.find(U"architectures");
  const bool is_named = architectures != nullptr && !architectures->items.empty() &&
                        architectures->items[0].kind == Json::string;
  config.architecture = is_named ? encode_utf8(architectures->items[0].text) : "?";
  const auto* task = std::find_if(std::begin(kTasks), std::end(kTasks), [&](const TaskNames& names) {
    const std::string end = names.architecture;
    return config.architecture.size() >= end.size() &&
           config.architecture.compare(config.architecture.size() - end.size(), end.npos, end) == 0;
  });
  if (task == std::end(kTasks)) {
    throw Error(path + ": `architectures` names " + config.architecture +
                ", expected one of ...ForSequenceClassification, ...ForTokenClassification, ...ForQuestionAnswering");
  }
  config.kind = task->kind;

  const auto whole_number = [&](const Json* object, const char32_t* name, int otherwise) {
    const Json* value = object == nullptr ? nullptr : object->find(name);
    if (value == nullptr || value->kind == Json::null) return otherwise;
    const auto number = value->kind == Json::integer ? number_of(*value) : std::nullopt;
    if (!number || *number < 1) {
      const std::u32string_view field = name;
      throw Error(path + ": `" + encode_utf8(field) + "` is " + shown(*value) + ", expected a whole number, 1 or more");
    }
    return static_cast<int>(*number);
  };
  config.vocab_size = whole_number(&json, U"vocab_size", 0);
  config.max_position_embeddings = whole_number(&json, U"max_position_embeddings", 0);
  if (const Json* checksum = json.find(U"vocab_crc32"); checksum != nullptr && checksum->kind != Json::null) {
    config.vocab_crc32 = encode_utf8(checksum->text);
  }
  if (const Json* params = json.find(U"task_specific_params"); params != nullptr) {
    const std::string name = task->params;
    params = params->find(std::u32string(name.begin(), name.end()));
    const Json* named = params == nullptr ? nullptr : params->find(U"task");  // several may share an architecture
    if (named != nullptr && encode_utf8(named->text) != task->name) {
      throw Error(path + ": `task_specific_params` names a task for " + config.architecture + " that is unknown here");
    }
    const Json* pair = params == nullptr ? nullptr : params->find(U"text_pair");
    if (config.kind == TaskKind::seq_cls && pair != nullptr && pair->kind != Json::null) {
      if (pair->kind != Json::boolean) throw Error(path + ": `text_pair` is " + shown(*pair) + ", expected true or false");
      config.text_pair = pair->text == U"true";
    }
    if (config.kind != TaskKind::seq_cls) config.doc_stride = whole_number(params, U"doc_stride", config.doc_stride);
    if (config.kind == TaskKind::qa) {
      config.max_query_length = whole_number(params, U"max_query_length", config.max_query_length);
      config.n_best_size = whole_number(params, U"n_best_size", config.n_best_size);
      config.max_answer_length = whole_number(params, U"max_answer_length", config.max_answer_length);
    }
  }

  if (config.kind == TaskKind::qa) return config;
  config.labels = class_names(json.find(U"id2label"), path + ", `id2label`", false);
  const auto others = class_names(json.find(U"label2id"), path + ", `label2id`", true);
  if (config.labels.empty()) config.labels = others;
  for (size_t i = 0; i < others.size(); ++i) {
    const auto place = std::find(config.labels.begin(), config.labels.end(), others[i]);
    if (place != config.labels.end() && place - config.labels.begin() != static_cast<long>(i)) {
      throw Error(path + ": '" + others[i] + "' is class " + std::to_string(place - config.labels.begin()) +
                  " in `id2label`, and class " + std::to_string(i) +
                  " in `label2id`; make them the same, or remove `label2id`");
    }
  }
  if (config.labels.empty()) throw Error(path + " has no `id2label`, the names of the labels");
  return config;
}

}  // namespace ernie
