// What runs a model: a batch of ids goes in, logits come out. Nothing here knows of texts.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "errors.h"

namespace ernie {

// input_ids and token_type_ids, [size, length] each.
struct Batch {
  size_t size, length;
  std::vector<int64_t> input_ids, token_type_ids;
};

// An output of the model: [batch, ...].
struct Output {
  std::vector<float> values;
};

class Engine {
 public:
  virtual ~Engine() = default;

  // The last dimension of each output: classes, tags; 0 where it is the length.
  virtual std::vector<size_t> widths() const = 0;

  // Thread-safe. Throws Error.
  virtual std::vector<Output> run(Batch& batch) = 0;

 protected:
  Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
};

// Opens an ONNX file on the CPU.
//   num_threads: for one batch.
//   cache_dir: where a compiled model is kept, to start faster; empty: in the user's cache.
// Throws Error: the file cannot be loaded.
std::unique_ptr<Engine> open_engine(const std::string& onnx_file, int num_threads, const std::string& cache_dir);

// Its name and version.
std::string engine_version();

// What both engines check of an open model; `names` are its inputs'. Throws Error.
void check_inputs(const std::string& onnx_file, std::vector<std::string> names);

// What an exception says, in one line of at most 200 characters.
std::string one_line(const std::string& message);

}  // namespace ernie
