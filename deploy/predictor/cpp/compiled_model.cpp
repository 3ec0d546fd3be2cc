#include "compiled_model.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace ernie {
namespace {

constexpr size_t kHugePage = 2 << 20;

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
  namespace fs = std::filesystem;
  struct stat status = {};
  stat(onnx_file.c_str(), &status);
  // The time of the inode is the one that no program can set.
  source_ = std::to_string(status.st_size) + ' ' + std::to_string(status.st_ino);
  for (const auto& time : {status.st_mtim, status.st_ctim}) {
    source_ += ' ' + std::to_string(time.tv_sec) + '.' + std::to_string(time.tv_nsec);
  }
  const auto name = ".openvino-cpp-" + hash_of(made_by + '\n' + processor()) + ".blob";
  std::error_code ignored;
  const fs::path path = fs::canonical(onnx_file, ignored);
  // A cache holds what was made of many folders.
  const auto elsewhere = hash_of(path.string()) + ".model" + name;
  if (!cache_dir.empty()) {
    paths_.push_back(cache_dir + '/' + elsewhere);
    return;
  }
  paths_.push_back((path.parent_path() / ("model" + name)).string());
  const char* user_cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (user_cache != nullptr && *user_cache != '\0') {
    paths_.push_back(std::string(user_cache) + "/ernie_predictor/" + elsewhere);
  } else if (home != nullptr) {
    paths_.push_back(std::string(home) + "/.cache/ernie_predictor/" + elsewhere);
  }
}

std::string CompiledModel::record(std::string_view content) const {
  auto text = "\nernie compiled model, of " + source_ + ", content " + hash_of(content) + "\n";
  text.resize(kRecordSize);
  return text;
}

bool CompiledModel::fits(const FileContent& file) const {
  if (file.size() <= kRecordSize) return false;
  const size_t size = file.size() - kRecordSize;
  return std::string_view(file.data() + size, kRecordSize) == record({file.data(), size});
}

void CompiledModel::write(const std::function<void(std::ostream&)>& save) const {
  for (const auto& path : paths_) {
    std::error_code error;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
    const auto part = path + '.' + std::to_string(getpid()) + ".part";
    std::ofstream file(part, std::ios::binary);
    if (!file) continue;
    save(file);
    file.close();
    bool is_complete = !file.fail();
    if (is_complete) {
      const FileContent content(part);
      file.open(part, std::ios::binary | std::ios::app);
      file << record({content.data(), content.size()});
      file.close();
      is_complete = !file.fail() && is_synced(part);
    }
    if (is_complete) std::filesystem::rename(part, path, error);
    if (is_complete && !error) return;
    std::filesystem::remove(part, error);  // a full disk
  }
}

}  // namespace ernie
