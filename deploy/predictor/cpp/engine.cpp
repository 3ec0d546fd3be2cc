#include "engine.h"

#include <algorithm>
#include <sstream>

namespace ernie {

void check_inputs(const std::string& onnx_file, std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  if (names == std::vector<std::string>{"input_ids", "token_type_ids"}) return;
  std::string list;
  for (const auto& name : names) list += (list.empty() ? "" : ", ") + name;
  throw Error(onnx_file + " takes " + list + "; expected a model of input_ids and token_type_ids, int64");
}

std::string one_line(const std::string& message) {
  std::istringstream words(message);
  std::string line;
  for (std::string word; words >> word;) line += (line.empty() ? "" : " ") + word;
  // Characters, not bytes.
  size_t end = 0;
  for (size_t characters = 0; end < line.size(); ++end) {
    if ((line[end] & 0xC0) != 0x80 && ++characters > 200) break;
  }
  return line.substr(0, end);
}

}  // namespace ernie
