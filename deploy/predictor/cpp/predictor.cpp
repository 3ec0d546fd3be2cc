#include "predictor.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <filesystem>
#include <numeric>

#include "machine.h"

namespace ernie {
namespace {

// One chunk is tokenized, sorted by length and answered before the next is read. The sizes of predictor.py: so batches
// are the same, and with them the last digits of confidences.
constexpr size_t kChunkBatches = 32;
constexpr size_t kChunkCharacters = 1 << 20;

size_t characters_in(const Pair& pair) {
  const auto count = [](const std::string& text) {
    return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
  };
  return count(pair.first) + (pair.second ? count(*pair.second) : 0);
}

std::unique_ptr<Engine> open_checked(const std::string& folder, const Task& task, const Options& options) {
  const auto path = folder + "/model.onnx";
  if (!std::filesystem::is_regular_file(path)) {
    throw Error(folder + " has no model.onnx; run_*.py --do_export and compress_*.py write it");
  }
  std::unique_ptr<Engine> engine;
  try {
    engine = open_engine(path, options.num_threads > 0 ? options.num_threads : usable_cores(), options.cache_dir);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    throw Error(path + " cannot be loaded; is the file complete? (" + one_line(e.what()) + ")");
  }
  const auto widths = engine->widths();
  const bool is_qa = task.kind() == TaskKind::qa;
  if (widths.size() != (is_qa ? 2 : 1)) {
    throw Error(path + " has " + std::to_string(widths.size()) + " output(s), so it is not a " + task_name(task.kind()) +
                " model as config.json says");
  }
  const auto labels = task.config().labels.size();
  if (!is_qa && widths[0] != labels) {
    throw Error(folder + ": config.json names " + std::to_string(labels) + " labels, but the model has " +
                std::to_string(widths[0]) + " classes; the files belong to different models");
  }
  return engine;
}

const std::string& checked_folder(const std::string& folder) {
  namespace fs = std::filesystem;
  const auto holds_model = [&] {
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() == ".onnx" || entry.path().extension() == ".pdmodel") return true;
    }
    return false;
  };
  if (fs::is_directory(fs::path(folder) / "export") && !holds_model()) {
    throw Error("--model_path " + folder + " holds no exported model; did you mean " +
                (fs::path(folder) / "export").string() + "?");
  }
  return folder;
}

}  // namespace

Predictor::Predictor(const std::string& folder, const Options& options)
    : task_(checked_folder(folder), options.task_name, options.max_seq_length),
      onnx_file_(folder + "/model.onnx"),
      batch_size_(static_cast<size_t>(std::max(options.batch_size, 1))),
      engine_(open_checked(folder, task_, options)) {}

std::vector<Answer> Predictor::predict(const std::vector<Pair>& pairs) const {
  std::vector<Answer> answers;
  auto next = pairs.begin();
  // The first chunk is small: nothing waits for it here, but batches are those of `predict_stream`.
  predict_stream(
      [&](Pair& pair) {
        if (next == pairs.end()) return false;
        pair = *next++;
        return true;
      },
      [&](const std::vector<Answer>& found) { answers.insert(answers.end(), found.begin(), found.end()); });
  return answers;
}

void Predictor::predict_stream(const std::function<bool(Pair&)>& next,
                               const std::function<void(const std::vector<Answer>&)>& answered) const {
  const size_t largest = batch_size_ > 1 ? kChunkBatches * batch_size_ : 1;
  std::exception_ptr error;
  std::vector<Pair> chunk;
  for (size_t limit = batch_size_, characters = 0; !error;) {
    bool is_end = false;
    try {
      Pair pair;
      is_end = !next(pair);
      if (!is_end) {
        characters += characters_in(pair);
        chunk.push_back(std::move(pair));
      }
    } catch (const Error&) {
      error = std::current_exception();
    }
    if (is_end || error || chunk.size() >= limit || characters >= kChunkCharacters) {
      if (!chunk.empty()) answered(answer(chunk));
      if (is_end) return;
      chunk.clear();
      characters = 0;
      limit = std::min(2 * limit, largest);
    }
  }
  std::rethrow_exception(error);
}

std::vector<Answer> Predictor::answer(const std::vector<Pair>& pairs) const {
  std::vector<Feature> features;
  const auto notes = task_.tokenize(pairs, features);
  return task_.read(pairs, notes, run(features));
}

std::vector<Logits> Predictor::run(const std::vector<Feature>& features) const {
  // Batches of similar length, the longest first, which need the most memory.
  std::vector<size_t> order(features.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return features[a].input_ids.size() > features[b].input_ids.size();
  });
  std::vector<Logits> logits(features.size());
  for (size_t begin = 0; begin < order.size(); begin += batch_size_) {
    const size_t size = std::min(batch_size_, order.size() - begin);
    const size_t length = features[order[begin]].input_ids.size();
    Batch batch{size, length, std::vector<int64_t>(size * length, task_.pad_id()), std::vector<int64_t>(size * length)};
    for (size_t row = 0; row < size; ++row) {
      const auto& feature = features[order[begin + row]];
      const auto place = static_cast<std::ptrdiff_t>(row * length);
      std::copy(feature.input_ids.begin(), feature.input_ids.end(), batch.input_ids.begin() + place);
      std::fill(batch.token_type_ids.begin() + place + static_cast<std::ptrdiff_t>(feature.first_segment),
                batch.token_type_ids.begin() + place + static_cast<std::ptrdiff_t>(feature.input_ids.size()), 1);
    }
    std::vector<Output> outputs;
    try {
      outputs = engine_->run(batch);
    } catch (const std::exception& e) {
      throw Error(onnx_file_ + " failed on a batch of " + std::to_string(size) + "x" + std::to_string(length) +
                  " tokens: " + one_line(e.what()));
    }
    for (const auto& [values] : outputs) {
      if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); })) {
        throw Error(onnx_file_ + " gives logits that are not a number (NaN) or infinite; its weights are damaged, or too "
                    "large for the precision");
      }
      const auto row_size = static_cast<std::ptrdiff_t>(values.size() / size);
      auto row = values.begin();
      for (size_t i = 0; i < size; ++i, row += row_size) logits[order[begin + i]].emplace_back(row, row + row_size);
    }
  }
  return logits;
}

}  // namespace ernie
