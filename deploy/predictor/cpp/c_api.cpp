#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <string_view>

#include "ernie.h"
#include "lines.h"
#include "predictor.h"
#include "unicode.h"

struct ernie_predictor {
  ernie::Predictor predictor;
};

namespace {

thread_local std::string last_error;

// Calls a function; an exception becomes the last error, and nullptr.
template <typename Function>
auto guarded(const Function& function) noexcept -> decltype(function()) {
  try {
    return function();
  } catch (const std::exception& e) {
    last_error = ernie::valid_utf8(e.what());
  }
  return nullptr;
}

// What a binding passes for a missing value.
void check_given(const void* argument, const char* name) {
  if (argument == nullptr) throw ernie::UsageError(std::string(name) + " is NULL");
}

void check_count(int number, const char* name) {
  if (number < 0) throw ernie::UsageError(std::string(name) + " is " + std::to_string(number) + ", expected 0 or more");
}

}  // namespace

ernie_predictor* ernie_open(const char* model_path, int num_threads, int batch_size, int max_seq_length) {
  return guarded([&] {
    check_given(model_path, "model_path");
    check_count(num_threads, "num_threads");
    check_count(batch_size, "batch_size");
    check_count(max_seq_length, "max_seq_length");
    ernie::Options options;
    options.num_threads = num_threads;
    if (batch_size > 0) options.batch_size = batch_size;
    options.max_seq_length = max_seq_length;
    return new ernie_predictor{ernie::Predictor(model_path, options)};
  });
}

char* ernie_predict(const ernie_predictor* predictor, const char* lines) {
  return guarded([&] {
    check_given(predictor, "predictor");
    check_given(lines, "lines");
    const auto& task = predictor->predictor.task();
    std::string_view rest = lines;
    size_t number = 0;
    std::string answers;
    const auto next = [&](ernie::Pair& pair) {
      if (rest.empty()) return false;
      const auto end = rest.find('\n');
      try {
        pair = ernie::parse_line(rest.substr(0, end), task, ++number == 1);
      } catch (const ernie::Error& e) {
        throw ernie::Error("line " + std::to_string(number) + ": " + e.what());
      }
      rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
      return true;
    };
    predictor->predictor.predict_stream(next, [&](const std::vector<ernie::Answer>& found) {
      for (const auto& answer : found) answers += to_json(answer) + '\n';
    });
    auto* result = static_cast<char*>(std::malloc(answers.size() + 1));
    if (result == nullptr) throw std::bad_alloc();
    std::memcpy(result, answers.c_str(), answers.size() + 1);
    return result;
  });
}

size_t ernie_truncated(const ernie_predictor* predictor) {
  return predictor == nullptr ? 0 : predictor->predictor.task().truncated();
}

const char* ernie_last_error() { return last_error.c_str(); }

void ernie_free(char* result) { std::free(result); }

void ernie_close(ernie_predictor* predictor) { delete predictor; }
