// Lines of input, as infer_cpu.py reads them: a text, two with a tab between them, or an object of JSON.
#pragma once

#include <string>
#include <string_view>

#include "tasks.h"

namespace ernie {

// The text or texts of a line of UTF-8, with or without its line break. Throws Error.
Pair parse_line(std::string_view line, const Task& task, bool is_first);

// Counts lines, and says where an error is.
class LineReader {
 public:
  LineReader(const Task& task, std::string name) : task_(task), name_(std::move(name)) {}

  // Throws Error, which names the line.
  Pair read(std::string_view line);

 private:
  const Task& task_;
  std::string name_;
  size_t number_ = 0;
};

}  // namespace ernie
