// Raw text in, answers out: a task, an engine, and batches of texts of similar length.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine.h"
#include "tasks.h"

namespace ernie {

struct Options {
  std::string task_name;   // the task that the model must be for; empty: any
  std::string cache_dir;   // see open_engine
  int num_threads = 0;     // 0: the cores that this process may use
  int batch_size = 32;     // texts per batch; for long contexts, windows
  int max_seq_length = 0;  // tokens per text; 0: as trained
};

class Predictor {
 public:
  // Opens a folder that run_*.py --do_export or compress_*.py wrote. Throws Error, UsageError.
  explicit Predictor(const std::string& folder, const Options& options = {});

  const Task& task() const { return task_; }

  // Answers in the order of the pairs. Thread-safe. Throws Error.
  std::vector<Answer> predict(const std::vector<Pair>& pairs) const;

  // As `predict`, with memory that does not grow with the number of pairs: they are read in chunks, of which the first is
  // one batch. With a batch size of 1 each is answered before the next is read.
  //   next: sets the next pair, or returns false where there is none. Where it throws, those before are answered first.
  //   answered: takes the answers of a chunk.
  void predict_stream(const std::function<bool(Pair&)>& next,
                      const std::function<void(const std::vector<Answer>&)>& answered) const;

 private:
  std::vector<Answer> answer(const std::vector<Pair>& pairs) const;
  std::vector<Logits> run(const std::vector<Feature>& features) const;

  Task task_;
  std::string onnx_file_;
  size_t batch_size_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace ernie
