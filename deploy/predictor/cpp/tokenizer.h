// Text to input ids: the ids and offsets of ernie_predictor/tokenizer.py.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
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

  // Tokenizes a text without special tokens and without truncation. Thread-safe. As UTF-8, it is refused with an Error if
  // it is not valid. Code points may hold surrogates, as a Python str may: they are dropped.
  Encoding encode(std::string_view text) const;
  Encoding encode(std::u32string_view text) const;

  int32_t cls_id() const { return cls_id_; }
  int32_t sep_id() const { return sep_id_; }
  int32_t pad_id() const { return pad_id_; }
  int model_max_length() const { return model_max_length_; }
  // One more than the largest id.
  int32_t size() const { return size_; }
  // A checksum of the vocabulary's words in the order of their ids, as config.json has it.
  const std::string& vocab_crc32() const { return vocab_crc32_; }

 private:
  // A character of a word, and the place in the text of the character that it comes from.
  struct Letter {
    char32_t character;
    int32_t origin;
  };

  void read_config(const std::string& file);
  void read_vocab(const std::string& file);
  // Returns the id that the wordpiece had, or -1.
  int32_t add_wordpiece(std::u32string_view wordpiece, int32_t id);
  uint32_t packed_plain(char32_t character) const;
  int32_t child(int32_t node, char32_t character) const;
  void encode_word(const Letter* word, size_t size, Encoding& encoding) const;

  bool do_lower_case_ = true;
  int model_max_length_ = 512;
  int32_t cls_id_ = -1, sep_id_ = -1, pad_id_ = -1, mask_id_ = -1, unk_id_ = -1;
  int32_t size_ = 0;
  std::string vocab_crc32_;

  // plain() of the characters of planes 0 and 1, packed into a number each, filled as characters turn up.
  std::unique_ptr<std::atomic<uint32_t>[]> plain_;

  // The vocabulary as a trie: {node << 32 | character: node}, and the id of the wordpiece that ends at a node, or -1.
  std::unordered_map<uint64_t, int32_t> children_;
  std::vector<int32_t> ids_;
};

}  // namespace ernie
