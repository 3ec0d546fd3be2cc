// Tokenizes texts, to be compared with the Python tokenizer.
//
//   tokenizer_dump MODEL_FOLDER <texts.jsonl >encodings.jsonl
//   tokenizer_dump MODEL_FOLDER --seconds <texts.jsonl        how long tokenizing takes, once the texts are read
//
// A line of the input is a text as a JSON string, or the bytes of one as a JSON array. A line of the output is
// {"ids": [...], "offsets": [[begin, end], ...]} or {"error": "..."}.
#include <chrono>
#include <iostream>
#include <string>
#include <vector>

#include "../json.h"
#include "../tokenizer.h"

namespace {

std::string to_json(const ernie::Encoding& encoding) {
  std::string ids, offsets;
  for (const auto id : encoding.ids) ids += (ids.empty() ? "" : ", ") + std::to_string(id);
  for (const auto& [begin, end] : encoding.offsets) {
    offsets += (offsets.empty() ? "[" : ", [") + std::to_string(begin) + ", " + std::to_string(end) + "]";
  }
  return "{\"ids\": [" + ids + "], \"offsets\": [" + offsets + "]}";
}

ernie::Encoding encode(const ernie::Tokenizer& tokenizer, const ernie::Json& text) {
  if (text.kind == ernie::Json::string) return tokenizer.encode(text.text);
  std::string bytes;
  for (const auto& byte : text.items) bytes += static_cast<char>(std::stoi(ernie::encode_utf8(byte.text)));
  return tokenizer.encode(bytes);
}

void dump(const ernie::Tokenizer& tokenizer, std::istream& input) {
  for (std::string line; std::getline(input, line);) {
    const auto text = ernie::parse_json(ernie::decode_utf8(line));
    try {
      std::cout << to_json(encode(tokenizer, text)) << '\n';
    } catch (const ernie::Error& error) {
      std::string message;
      ernie::append_json(message, error.what());
      std::cout << "{\"error\": " << message << "}\n";
    }
  }
}

void measure(const ernie::Tokenizer& tokenizer, std::istream& input) {
  std::vector<std::string> texts;
  for (std::string line; std::getline(input, line);) {
    texts.push_back(ernie::encode_utf8(ernie::parse_json(ernie::decode_utf8(line)).text));
  }
  std::chrono::duration<double> seconds{};
  for (int round = 0; round < 2; ++round) {  // the first one warms up
    const auto start = std::chrono::steady_clock::now();
    for (const auto& text : texts) tokenizer.encode(text);
    seconds = std::chrono::steady_clock::now() - start;
  }
  std::cout << seconds.count() << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  const bool seconds = argc == 3 && std::string(argv[2]) == "--seconds";
  if (argc != 2 && !seconds) {
    std::cerr << "usage: tokenizer_dump MODEL_FOLDER [--seconds]\n";
    return 2;
  }
  std::ios::sync_with_stdio(false);
  try {
    (seconds ? measure : dump)(ernie::Tokenizer(argv[1]), std::cin);
  } catch (const ernie::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
