#include "compiled_model.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <tuple>
#include <vector>

namespace ernie {
namespace {

constexpr size_t kHugePage = 2 << 20;
namespace fs = std::filesystem;

// As in ernie_predictor/derived_models.py.
constexpr const char* kEnding = ".ernie-cache";
constexpr std::chrono::hours kKept(30 * 24);
constexpr uintmax_t kLimit = 20'000'000'000;

// A 64-bit hash as 16 hex digits: against damage, not against intent. Four lanes, whose multiplications do not wait for one
// another: 22 ms for the 119 MB of ERNIE 3.0 Medium in INT8.
std::string hash_of(std::string_view content) {
  uint64_t lanes[] = {1, 2, 3, 4};
  const auto mix = [](uint64_t& lane, uint64_t word) {
    lane = (lane ^ word) * 0x9e3779b185ebca87;
    lane = lane << 31 | lane >> 33;
  };
  size_t place = 0;
  for (; place + sizeof lanes <= content.size(); place += sizeof lanes) {
    uint64_t words[4];
    std::memcpy(words, content.data() + place, sizeof words);
    for (int i = 0; i < 4; ++i) mix(lanes[i], words[i]);
  }
  for (; place < content.size(); ++place) mix(lanes[0], static_cast<unsigned char>(content[place]));
  uint64_t hash = content.size();
  for (const uint64_t lane : lanes) mix(hash, lane);
  std::string digits;
  for (int shift = 60; shift >= 0; shift -= 4) digits += "0123456789abcdef"[(hash >> shift) & 15];
  return digits;
}

// Whether a file's content is on the disk.
bool is_synced(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  const bool is_done = fsync(file) == 0;
  close(file);
  return is_done;
}

// The processor's name and instructions.
std::string processor() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string found;
  for (std::string line; std::getline(cpuinfo, line) && !line.empty();) {
    if (line.rfind("model name", 0) == 0 || line.rfind("flags", 0) == 0 || line.rfind("Features", 0) == 0) {
      found += line + '\n';
    }
  }
  return found;
}

std::string record_of(std::string_view content) {
  auto text = "\nernie compiled model, content " + hash_of(content) + "\n";
  text.resize(CompiledModel::kRecordSize);
  return text;
}

// Removes the entries of a cache that nobody has used for `kKept`, and the oldest above `kLimit`. Whoever has one open keeps
// it.
void remove_old(const fs::path& cache) {
  std::error_code error;
  std::vector<std::tuple<fs::file_time_type, uintmax_t, fs::path>> entries;
  for (const auto& entry : fs::directory_iterator(cache, error)) {
    if (entry.path().extension() != kEnding) continue;
    try {
      uintmax_t size = entry.is_directory() ? 0 : entry.file_size();
      if (entry.is_directory()) {
        for (const auto& file : fs::directory_iterator(entry.path())) size += file.file_size();
      }
      entries.emplace_back(entry.last_write_time(), size, entry.path());
    } catch (const fs::filesystem_error&) {
      // Another process removes it.
    }
  }
  std::sort(entries.rbegin(), entries.rend());
  uintmax_t total = 0;
  for (const auto& [used, size, path] : entries) {
    total += size;
    if (total > kLimit || fs::file_time_type::clock::now() - used > kKept) fs::remove_all(path, error);
  }
}

}  // namespace

FileContent::FileContent(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  struct stat status;
  if (fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0) {
    const auto size = static_cast<size_t>(status.st_size);
    // OpenVINO computes with numbers where they are, and wants them aligned. Pages of 4 KiB would take as long as reading.
    const size_t room = (size + kHugePage - 1) / kHugePage * kHugePage;
    data_ = static_cast<char*>(std::aligned_alloc(kHugePage, room));
    if (data_ != nullptr) madvise(data_, room, MADV_HUGEPAGE);
    ssize_t count = 1;
    while (data_ != nullptr && size_ < size && count > 0) {
      count = read(file, data_ + size_, size - size_);
      size_ += count > 0 ? static_cast<size_t>(count) : 0;
    }
    if (size_ < size) size_ = 0;
  }
  close(file);
}

CompiledModel::CompiledModel(const std::string& onnx_file, const std::string& made_by, const std::string& cache_dir) {
  std::string folder = cache_dir;
  if (folder.empty()) {
    const char* user_cache = std::getenv("XDG_CACHE_HOME");
    const char* home = std::getenv("HOME");
    const bool is_set = user_cache != nullptr && *user_cache != '\0';
    folder = (is_set ? std::string(user_cache) : std::string(home == nullptr ? "" : home) + "/.cache") + "/ernie_predictor";
  }
  const FileContent source(onnx_file);
  const auto made_of = hash_of({source.data(), source.size()}) + '\n' + made_by + '\n' + processor();
  path_ = folder + "/openvino-cpp-" + hash_of(made_of) + kEnding;
}

bool CompiledModel::is_intact(const FileContent& file) const {
  if (file.size() <= kRecordSize) return false;
  const size_t size = file.size() - kRecordSize;
  if (std::string_view(file.data() + size, kRecordSize) != record_of({file.data(), size})) return false;
  utimensat(AT_FDCWD, path_.c_str(), nullptr, 0);  // it was used now
  return true;
}

void CompiledModel::write(const std::function<void(std::ostream&)>& save) const {
  std::error_code error;
  const auto folder = fs::path(path_).parent_path();
  fs::create_directories(folder, error);
  // With the ending of an entry: what a killed process left goes as an old entry does.
  const auto part = path_ + '.' + std::to_string(getpid()) + ".part" + kEnding;
  std::ofstream file(part, std::ios::binary);
  if (!file) return;
  save(file);
  file.close();
  bool is_complete = !file.fail();
  if (is_complete) {
    const FileContent content(part);
    file.open(part, std::ios::binary | std::ios::app);
    file << record_of({content.data(), content.size()});
    file.close();
    is_complete = !file.fail() && is_synced(part);
  }
  if (is_complete) fs::rename(part, path_, error);
  if (!is_complete || error) fs::remove(part, error);  // a full disk
  remove_old(folder);
}

}  // namespace ernie
