// Hostile lines of text and JSON, from a seed, through everything from the bytes to the answers: fuzz DIR N [SEED]
//
// Built with -DSANITIZE=ON, it ends at the first error that a sanitizer finds. A broken line must be refused, every other
// one answered; the C++ interface throws nothing but Error.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <string>

#include "lines.h"
#include "predictor.h"

namespace {

class Hostile {
 public:
  explicit Hostile(unsigned seed) : random_(seed) {}

  std::string line() {
    auto line = below(3) == 0 ? text(below(200)) : object();
    // Bytes out of place, in one of four.
    for (size_t n = below(4) == 0 ? 1 + below(4) : 0; n > 0 && !line.empty(); --n) {
      const auto place = below(line.size());
      switch (below(3)) {
        case 0:
          line[place] = static_cast<char>(below(256));
          break;
        case 1:
          line.erase(place, 1 + below(8));
          break;
        default:
          line.insert(place, line.substr(below(line.size()), below(8)));
      }
    }
    return line;
  }

 private:
  size_t below(size_t limit) { return random_() % limit; }

  template <size_t size>
  std::string pick(const char* const (&choices)[size]) {
    return choices[below(size)];
  }

  std::string text(size_t length) {
    std::string text;
    while (text.size() < length) text += piece();
    return text;
  }

  std::string piece() {
    switch (below(8)) {
      case 0:
        return pick({"[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "##", "[", "]", "\\", "\t", " ", "\xE3\x80\x80"});
      case 1:
        return pick({"a", "Huawei", "10kg", "\xCC\x81", "e\xCC\x81", "\xCE\xA3", "\xC4\xB0", "\xE2\x84\xAA", "3.14"});
      case 2:
        return std::string(1 + below(150), static_cast<char>('a' + below(26)));
      case 3:
        return utf8(static_cast<unsigned>(below(0x110000)));
      default:
        return utf8(static_cast<unsigned>(0x4E00 + below(0x5000)));
    }
  }

  // Surrogates, too, which no UTF-8 has.
  static std::string utf8(unsigned c) {
    const auto byte = [](unsigned value) { return static_cast<char>(value); };
    const auto tail = [&](int shift) { return byte(0x80 | (c >> shift & 0x3F)); };
    if (c < 0x80) return {byte(c)};
    if (c < 0x800) return {byte(0xC0 | c >> 6), tail(0)};
    if (c < 0x10000) return {byte(0xE0 | c >> 12), tail(6), tail(0)};
    return {byte(0xF0 | c >> 18), tail(12), tail(6), tail(0)};
  }

  std::string quoted(size_t length) {
    std::string json = "\"";
    while (length-- > 0) {
      if (below(300) == 0) {
        json += pick({"\\ud800", "\\udc00", "\\x", "\\u12", "\n", "\\"});  // what is refused
      } else if (below(6) == 0) {
        json += pick({"\\n", "\\u0000", "\\ud83d\\ude00", "\\u00e9", "\\\"", "\\/", "\\b", "\\\\"});
      } else {
        const auto next = piece();
        const bool is_plain = next != "\\" && next != "\"" && (next[0] < 0 || next[0] > 31);
        if (is_plain) json += next;
      }
    }
    return json + '"';
  }

  std::string value(int depth) {
    switch (below(depth > 3 ? 4 : 7)) {
      case 0:
        return pick({"null", "true", "false", "NaN", "-Infinity", "0", "-0", "01", "1e999", "-", "1.", "12.5E-3", ""});
      case 4: {
        std::string list = "[";
        for (size_t n = below(4); n > 0; --n) list += value(depth + 1) + (below(9) == 0 ? "" : ",");
        return (list.back() == ',' ? list.substr(0, list.size() - 1) : list) + "]";
      }
      case 5: {
        const size_t levels = below(2000);
        return std::string(levels, '[') + std::string(below(10) == 0 ? levels / 2 : levels, ']');
      }
      default:
        return quoted(below(below(20) == 0 ? 300 : 20));
    }
  }

  std::string object() {
    std::string json = "{";
    for (const char* key : {"text", "text_pair", "question", "context"}) {
      if (below(8) == 0) continue;
      json += '"' + std::string(key) + "\": " + (below(20) > 0 ? quoted(below(60)) : value(0)) + ", ";
    }
    return json + "\"id\": " + (below(3) > 0 ? "1" : value(0)) + "}";
  }

  std::mt19937 random_;
};

}  // namespace

#ifdef __SANITIZE_ADDRESS__
// What OpenVINO and the libraries that it loads keep until the process ends.
extern "C" __attribute__((visibility("default"))) const char* __lsan_default_suppressions() {
  return "leak:libopenvino\nleak:libtbb\nleak:libhwloc\n";
}
#endif

int main(int argc, char** argv) {
  setenv("TBB_ENABLE_SANITIZERS", "1", 1);  // otherwise it loads a library in a way that AddressSanitizer forbids
  if (argc < 3) {
    std::fprintf(stderr, "usage: fuzz DIR N [SEED]\n");
    return 2;
  }
  const long number = std::atol(argv[2]);
  Hostile hostile(argc > 3 ? static_cast<unsigned>(std::atol(argv[3])) : 0U);
  try {
    ernie::Options options;
    options.max_seq_length = 32;  // short, so that texts are truncated and cut into windows
    const ernie::Predictor predictor(argv[1], options);
    long made = 0, refused = 0, answered = 0;
    const auto next = [&](ernie::Pair& pair) {
      while (made < number) {
        ++made;
        try {
          pair = ernie::parse_line(hostile.line(), predictor.task(), made % 2 == 0);
          return true;
        } catch (const ernie::Error&) {
          ++refused;
        }
      }
      return false;
    };
    predictor.predict_stream(next, [&](const std::vector<ernie::Answer>& answers) {
      for (const auto& answer : answers) answered += to_json(answer).empty() ? 0 : 1;
    });
    std::printf("%ld lines: %ld answered, %ld refused\n", made, answered, refused);
    return answered > 0 && refused > 0 && answered + refused == made ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "fuzz: %s\n", e.what());
    return 1;
  }
}
