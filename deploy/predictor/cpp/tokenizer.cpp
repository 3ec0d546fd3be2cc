#include "tokenizer.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>

#include "json.h"

namespace ernie {
namespace {

constexpr size_t kLongestWord = 100;  // PaddleNLP takes a longer one for [UNK]

// Nodes of the trie: its root, at which words begin, and the one of "##", at which wordpieces within a word begin.
constexpr int32_t kBeginning = 0, kWithin = 2;

// What plain() comes to: nothing, a space, one character of a word, or one that is a word by itself. The last two have the
// character in the lower bits. kOther is what is longer, such as the letters of a Korean syllable.
enum Kind : uint32_t { kUnknown, kDropped, kSpace, kLetter, kWord, kOther };
constexpr uint32_t kKindShift = 24, kCharacterMask = 0xffffff;
constexpr char32_t kTableSize = 0x20000;

uint32_t pack(const std::u32string& plain) {
  if (plain.empty()) return kDropped << kKindShift;
  if (plain == U" ") return kSpace << kKindShift;
  if (plain.size() == 1) return kLetter << kKindShift | plain[0];
  if (plain.size() == 3 && plain[0] == U' ' && plain[2] == U' ') return kWord << kKindShift | plain[1];
  return kOther << kKindShift;
}

// As zlib.crc32, as 8 hex digits.
std::string crc32(std::string_view text) {
  uint32_t sum = ~0U;
  for (const char c : text) {
    sum ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) sum = (sum >> 1) ^ ((sum & 1) != 0 ? 0xedb88320U : 0U);
  }
  std::string digits;
  for (int shift = 28; shift >= 0; shift -= 4) digits += "0123456789abcdef"[(~sum >> shift) & 15];
  return digits;
}

}  // namespace

Tokenizer::Tokenizer(const std::string& folder) : plain_(new std::atomic<uint32_t>[kTableSize]()) {
  read_config(folder + "/tokenizer_config.json");
  read_vocab(folder + "/vocab.txt");
}

void Tokenizer::read_config(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return;
  Json config;
  try {
    config = parse_json(decode_utf8(std::string(std::istreambuf_iterator<char>(stream), {})));
  } catch (const Error& error) {
    throw Error(file + " is not JSON: " + error.what());
  }
  if (config.kind != Json::object) throw Error(file + " is no JSON object");
  if (const Json* value = config.find(U"do_lower_case")) {
    if (value->kind != Json::boolean) throw Error(file + ": do_lower_case is " + shown(*value) + ", not true or false");
    do_lower_case_ = value->text == U"true";
  }
  const Json* value = config.find(U"model_max_length");
  if (value && value->kind != Json::null) {
    const bool is_number = value->kind == Json::integer || value->kind == Json::real;
    const double length = is_number ? std::strtod(encode_utf8(value->text).c_str(), nullptr) : -1;
    if (!(length >= 0)) throw Error(file + ": model_max_length is " + shown(*value) + ", not a number of tokens");
    // Hugging Face's libraries write 1e30 for "no limit".
    if (length >= 1) model_max_length_ = static_cast<int>(std::min(length, 1e6));
  }
}

void Tokenizer::read_vocab(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw Error(file + " does not exist; it is a part of every model folder");
  const std::array<std::pair<std::string_view, int32_t*>, 5> special = {{
      {"[PAD]", &pad_id_}, {"[CLS]", &cls_id_}, {"[SEP]", &sep_id_}, {"[MASK]", &mask_id_}, {"[UNK]", &unk_id_},
  }};
  ids_ = {-1};
  add_wordpiece(U"##", -1);  // makes node kWithin
  std::string line;
  std::vector<std::optional<std::string>> words;  // by id; of a word that is there twice, the last id counts
  for (int32_t id = 0; std::getline(stream, line); ++id) {
    line.erase(line.find_last_not_of('\r') + 1);
    try {
      const int32_t before = add_wordpiece(decode_utf8(line), id);
      if (before >= 0) words[static_cast<size_t>(before)].reset();
      words.emplace_back(line);
    } catch (const Error& error) {
      throw Error(file + ", line " + std::to_string(id + 1) + ": " + error.what());
    }
    for (const auto& [token, token_id] : special) {
      if (line == token) *token_id = id;
    }
    size_ = id + 1;
  }
  std::string missing;
  for (const auto& [token, id] : special) {
    if (*id < 0) missing.append(" ").append(token);
  }
  if (!missing.empty()) throw Error(file + " is no ERNIE vocabulary: it has no" + missing);
  std::string text;
  for (const auto& word : words) {
    if (word) text += *word + '\n';
  }
  vocab_crc32_ = crc32(text);
}

int32_t Tokenizer::add_wordpiece(std::u32string_view wordpiece, int32_t id) {
  int32_t node = kBeginning;
  for (const char32_t c : wordpiece) {
    const auto next = static_cast<int32_t>(ids_.size());
    const auto [found, is_new] = children_.try_emplace(static_cast<uint64_t>(node) << 32 | c, next);
    if (is_new) ids_.push_back(-1);
    node = found->second;
  }
  return std::exchange(ids_[static_cast<size_t>(node)], id);
}

int32_t Tokenizer::child(int32_t node, char32_t character) const {
  const auto found = children_.find(static_cast<uint64_t>(node) << 32 | character);
  return found == children_.end() ? -1 : found->second;
}

uint32_t Tokenizer::packed_plain(char32_t character) const {
  if (character >= kTableSize) return pack(plain(character, do_lower_case_));
  auto& entry = plain_[character];
  uint32_t value = entry.load(std::memory_order_relaxed);
  if (value == kUnknown) {  // two threads may both find it out, and find the same
    value = pack(plain(character, do_lower_case_));
    entry.store(value, std::memory_order_relaxed);
  }
  return value;
}

Encoding Tokenizer::encode(std::string_view text) const { return encode(decode_utf8(text)); }

Encoding Tokenizer::encode(std::u32string_view text) const {
  const std::array<std::pair<std::u32string_view, int32_t>, 5> special = {{
      {U"[PAD]", pad_id_}, {U"[CLS]", cls_id_}, {U"[SEP]", sep_id_}, {U"[MASK]", mask_id_}, {U"[UNK]", unk_id_},
  }};
  Encoding encoding;
  encoding.ids.reserve(text.size());
  encoding.offsets.reserve(text.size());
  std::vector<Letter> word;
  const auto end_word = [&] {
    encode_word(word.data(), word.size(), encoding);
    word.clear();
  };
  const auto add = [&](Kind kind, char32_t character, int32_t origin) {
    if (kind == kLetter) {
      word.push_back({character, origin});
      return;
    }
    end_word();
    if (kind == kWord) {
      const Letter letter = {character, origin};
      encode_word(&letter, 1, encoding);
    }
  };
  for (size_t position = 0; position < text.size(); ++position) {
    const auto origin = static_cast<int32_t>(position);
    if (text[position] == U'[') {
      const auto* found = std::find_if(special.begin(), special.end(), [&](const auto& token) {
        return text.substr(position, token.first.size()) == token.first;
      });
      if (found != special.end()) {
        end_word();
        const auto size = found->first.size();
        encoding.ids.push_back(found->second);
        encoding.offsets.emplace_back(origin, origin + static_cast<int32_t>(size));
        position += size - 1;
        continue;
      }
    }
    const uint32_t packed = packed_plain(text[position]);
    const auto kind = static_cast<Kind>(packed >> kKindShift);
    if (kind == kOther) {
      // Its words are parted by spaces, which is all that sets a kWord apart.
      for (const char32_t c : plain(text[position], do_lower_case_)) add(c == U' ' ? kSpace : kLetter, c, origin);
    } else if (kind != kDropped) {
      add(kind, packed & kCharacterMask, origin);
    }
  }
  end_word();
  return encoding;
}

// WordPiece: the longest wordpiece of the vocabulary at each place; the whole word is [UNK] if there is none at one.
void Tokenizer::encode_word(const Letter* word, size_t size, Encoding& encoding) const {
  if (size == 0) return;
  const size_t first = encoding.ids.size();
  for (size_t begin = 0, end = 0; begin < size; begin = end) {
    int32_t id = -1;
    if (size <= kLongestWord) {
      int32_t node = begin == 0 ? kBeginning : kWithin;
      for (size_t at = begin; at < size && (node = child(node, word[at].character)) >= 0; ++at) {
        if (ids_[static_cast<size_t>(node)] >= 0) {
          id = ids_[static_cast<size_t>(node)];
          end = at + 1;
        }
      }
    }
    if (id < 0) {
      encoding.ids.resize(first);
      encoding.offsets.resize(first);
      encoding.ids.push_back(unk_id_);
      encoding.offsets.emplace_back(word[0].origin, word[size - 1].origin + 1);
      return;
    }
    encoding.ids.push_back(id);
    encoding.offsets.emplace_back(word[begin].origin, word[end - 1].origin + 1);
  }
}

}  // namespace ernie
