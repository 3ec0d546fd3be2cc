// OpenVINO's compiled form of a model, kept in a file, from which it opens several times faster.
#pragma once

#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>

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

// An entry of the cache that ernie_predictor/derived_models.py describes, named after the ONNX file's content.
class CompiledModel {
 public:
  // `made_by`: whatever else the compiled form depends on, such as the version of the engine. The processor is added.
  // `cache_dir`: empty: the user's cache.
  CompiledModel(const std::string& onnx_file, const std::string& made_by, const std::string& cache_dir);

  // Bytes after the compiled form in the file: its checksum.
  static constexpr size_t kRecordSize = 64;

  const std::string& path() const { return path_; }

  // Whether the file has the content that was written.
  bool is_intact(const FileContent& file) const;

  // Writes the file, atomically; where it can't be written, nothing. `save` writes the compiled form to a stream.
  void write(const std::function<void(std::ostream&)>& save) const;

 private:
  std::string path_;
};

}  // namespace ernie
