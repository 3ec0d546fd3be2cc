// OpenVINO's compiled form of a model, kept in a file, from which it opens several times faster.
#pragma once

#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace ernie {

// What a file holds. Read, not mapped: a mapped file that is overwritten or truncated, as by `cp`, ends the process.
class FileContent {
 public:
  explicit FileContent(const std::string& path);  // empty where it cannot be read
  ~FileContent() { std::free(data_); }
  FileContent(const FileContent&) = delete;
  FileContent& operator=(const FileContent&) = delete;

  char* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  char* data_ = nullptr;
  size_t size_ = 0;
};

class CompiledModel {
 public:
  // `made_by`: whatever else the compiled form depends on, such as the version of the engine. The processor is added.
  CompiledModel(const std::string& onnx_file, const std::string& made_by, const std::string& cache_dir);

  // Bytes after the compiled form in a file of `paths`, which say what it was made of.
  static constexpr size_t kRecordSize = 256;

  // The places, in the order in which they are tried.
  const std::vector<std::string>& paths() const { return paths_; }

  // Whether a file is the compiled form of the ONNX file as it is now, and has the content that was written.
  bool fits(const FileContent& file) const;

  // Writes the file, atomically, in the first place that can be written to; without one, nothing. `save` writes the
  // compiled form to a stream.
  void write(const std::function<void(std::ostream&)>& save) const;

 private:
  std::string record(std::string_view content) const;

  std::string source_;  // tells the ONNX file's present content from others
  std::vector<std::string> paths_;
};

}  // namespace ernie
