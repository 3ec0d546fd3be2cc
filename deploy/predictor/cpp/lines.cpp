#include "lines.h"

#include "characters.h"

namespace ernie {
namespace {

// Throws Error with Python's reasons, where a byte is wrong.
std::u32string decode(std::string_view line) {
  std::u32string text;
  text.reserve(line.size());
  for (size_t i = 0; i < line.size();) {
    const auto byte = [&](size_t place) { return static_cast<unsigned char>(line[place]); };
    const auto fail = [&](const char* reason) {
      throw Error(std::string("not UTF-8: ") + reason + " at byte " + std::to_string(i + 1));
    };
    const unsigned char first = byte(i);
    if (first < 0x80) {
      text += first;
      ++i;
      continue;
    }
    if (first < 0xC2 || first > 0xF4) fail("invalid start byte");
    const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    char32_t c = first & (0x7F >> length);
    for (size_t k = 1; k < length; ++k) {
      if (i + k == line.size()) fail("unexpected end of data");
      // Of the second byte, neither what a shorter form would do for, nor surrogates, nor what is above U+10FFFF.
      const unsigned char least = k > 1 ? 0x80 : first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
      const unsigned char most = k > 1 ? 0xBF : first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
      if (byte(i + k) < least || byte(i + k) > most) fail("invalid continuation byte");
      c = c << 6 | (byte(i + k) & 0x3F);
    }
    text += c;
    i += length;
  }
  return text;
}

// Whether a line is a JSON array of texts or objects, or its beginning; "[转载]", "[1]" and "[CLS]" are text.
bool begins_array(std::u32string_view text) {
  if (text.empty() || text[0] != '[') return false;
  auto rest = text.substr(1);
  while (!rest.empty() && is_python_space(rest[0])) rest.remove_prefix(1);
  if (rest.empty()) return true;
  Json item;
  try {
    rest = strip(rest.substr(parse_json_prefix(rest, item)));
  } catch (const Error&) {
    return false;
  }
  if (item.kind == Json::array || item.kind == Json::object) return true;
  return item.kind == Json::string && (rest.empty() || rest[0] == ',' || rest[0] == ']');
}

}  // namespace

Pair parse_line(std::string_view line, const Task& task, bool is_first) {
  if (is_first && line.substr(0, 3) == "\xEF\xBB\xBF") line.remove_prefix(3);
  const auto decoded = decode(line);
  std::u32string_view text = decoded;
  while (!text.empty() && (text.back() == '\r' || text.back() == '\n')) text.remove_suffix(1);
  const auto stripped = strip(text);
  if (stripped.empty()) throw Error("empty, expected " + task.expected());
  if (stripped[0] == '{') {
    Json object;
    try {
      object = parse_json(stripped);
    } catch (const Error& e) {
      throw Error(std::string("begins with { but is not JSON: ") + e.what());
    }
    return task.check(object);
  }
  if (begins_array(stripped)) {
    throw Error("a JSON array; write one object per line, without brackets and commas around them");
  }
  if (!task.takes_pairs() || text.find('\t') == text.npos) return task.check(text);
  std::vector<std::u32string_view> texts;
  for (size_t tab = 0; tab != text.npos;) {
    tab = text.find('\t');
    texts.push_back(text.substr(0, tab));
    if (tab != text.npos) text.remove_prefix(tab + 1);
  }
  return task.check(texts);
}

}  // namespace ernie
