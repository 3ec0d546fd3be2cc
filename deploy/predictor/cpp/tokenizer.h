// Text to input ids: the ids and offsets of ernie_predictor/tokenizer.py.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "errors.h"
#include "unicode.h"

namespace ernie {

// One tokenized text without special tokens.
struct Encoding {
  std::vector<int32_t> ids;
  std::vector<std::pair<int32_t, int32_t>> offsets;  // [begin, end) in code points of the text, one per id
};

class Tokenizer {
 public:
  // Reads vocab.txt and, where it is there, tokenizer_config.json of a model folder. Throws Error, which names the file.
  explicit Tokenizer(const std::string& folder);

  // Tokenizes a text without special tokens and without truncation. Thread-safe. Throws Error if it is not valid UTF-8.
  Encoding encode(std::string_view text) const;

  int32_t cls_id() const { return cls_id_; }
  int32_t sep_id() const { return sep_id_; }
  int32_t pad_id() const { return pad_id_; }
  int model_max_length() const { return model_max_length_; }
};

}  // namespace ernie
