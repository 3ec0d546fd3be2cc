#include "json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <set>

#include "unicode.h"

namespace ernie {
namespace {

constexpr int kDeepest = 100;  // levels: a thread of 64 KiB has the stack for them
constexpr size_t kLongestInteger = 4300;  // digits, as Python's limit

bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }

class Parser {
 public:
  Parser(std::u32string_view text, bool refuses_twice) : text_(text), refuses_twice_(refuses_twice) {}

  size_t position = 0;

  void skip_space() {
    while (at(' ') || at('\t') || at('\n') || at('\r')) ++position;
  }

  [[noreturn]] void fail(const std::string& what, size_t where) const {
    const auto before = text_.substr(0, where);
    const auto line_break = before.rfind(U'\n');
    const auto line = 1 + std::count(before.begin(), before.end(), U'\n');
    const auto column = line_break == before.npos ? where + 1 : where - line_break;
    throw Error(what + ": line " + std::to_string(line) + " column " + std::to_string(column) + " (char " +
                std::to_string(where) + ")");
  }

  Json value(int depth = 0) {
    Json found;
    if (at('"')) {
      found.kind = Json::string;
      found.text = string();
    } else if (at('{') || at('[')) {
      if (depth == kDeepest) throw Error("more than " + std::to_string(kDeepest) + " levels of brackets");
      if (at('{')) {
        object(found, depth + 1);
      } else {
        array(found, depth + 1);
      }
    } else if (!word(found) && !number(found)) {
      fail("Expecting value", position);
    }
    return found;
  }

 private:
  bool at(char32_t c) const { return position < text_.size() && text_[position] == c; }

  void object(Json& found, int depth) {
    found.kind = Json::object;
    std::set<std::u32string> seen;
    std::optional<std::u32string> twice;
    ++position;
    skip_space();
    while (!at('}')) {
      if (!at('"')) fail("Expecting property name enclosed in double quotes", position);
      auto key = string();
      skip_space();
      if (!at(':')) fail("Expecting ':' delimiter", position);
      ++position;
      skip_space();
      found.items.push_back(value(depth));
      if (!seen.insert(key).second && !twice) twice = key;
      found.keys.push_back(std::move(key));
      skip_space();
      if (at('}')) break;
      if (!at(',')) fail("Expecting ',' delimiter", position);
      ++position;
      skip_space();
      if (!at('"')) fail("Expecting property name enclosed in double quotes", position);
    }
    ++position;
    if (twice && refuses_twice_) {
      throw Error("an object has the field `" + encode_utf8(std::u32string_view(*twice).substr(0, 60)) + "` twice");
    }
  }

  void array(Json& found, int depth) {
    found.kind = Json::array;
    ++position;
    skip_space();
    while (!at(']')) {
      found.items.push_back(value(depth));
      skip_space();
      if (at(']')) break;
      if (!at(',')) fail("Expecting ',' delimiter", position);
      ++position;
      skip_space();
      if (at(']')) fail("Expecting value", position);
    }
    ++position;
  }

  std::u32string string() {
    const size_t begin = position++;
    std::u32string found;
    for (;;) {
      while (position < text_.size() && !at('"') && !at('\\')) {
        if (text_[position] < 0x20) fail("Invalid control character at", position);
        found += text_[position++];
      }
      if (position + 1 >= text_.size() && !at('"')) fail("Unterminated string starting at", begin);
      if (at('"')) {
        ++position;
        return found;
      }
      const char32_t c = text_[++position];
      ++position;
      if (c == 'u') {
        found += escaped(found);
        continue;
      }
      constexpr std::u32string_view kLetters = U"\"\\/bfnrt", kMeanings = U"\"\\/\b\f\n\r\t";
      const auto place = kLetters.find(c);
      if (place == kLetters.npos) fail("Invalid \\escape", position - 2);
      found += kMeanings[place];
    }
  }

  // The character of \uXXXX, which joins the high half before it if it is a low one; halves alone stay.
  char32_t escaped(std::u32string& found) {
    const size_t begin = position;
    if (begin + 4 >= text_.size()) fail("Invalid \\uXXXX escape", begin - 1);
    char32_t c = 0;
    for (; position < begin + 4; ++position) {
      const char32_t d = text_[position];
      const char32_t low = d | 0x20;
      if (!is_digit(d) && !(low >= 'a' && low <= 'f')) fail("Invalid \\uXXXX escape", begin - 1);
      c = c * 16 + (is_digit(d) ? d - '0' : low - 'a' + 10);
    }
    const bool follows = begin >= 8 && text_[begin - 8] == '\\' && text_[begin - 7] == 'u';
    if (c >= 0xDC00 && c <= 0xDFFF && follows && !found.empty() && found.back() >= 0xD800 && found.back() <= 0xDBFF) {
      c = 0x10000 + ((found.back() - 0xD800) << 10) + (c - 0xDC00);
      found.pop_back();
    }
    return c;
  }

  bool word(Json& found) {
    constexpr std::pair<std::u32string_view, Json::Kind> kWords[] = {
        {U"null", Json::null}, {U"true", Json::boolean},  {U"false", Json::boolean},
        {U"NaN", Json::real},  {U"Infinity", Json::real}, {U"-Infinity", Json::real},
    };
    for (const auto& [name, kind] : kWords) {
      if (text_.substr(position, name.size()) == name) {
        found.kind = kind;
        found.text = name;
        position += name.size();
        return true;
      }
    }
    return false;
  }

  bool number(Json& found) {
    size_t end = position;
    const auto digit_at = [&](size_t place) { return place < text_.size() && is_digit(text_[place]); };
    const auto skip_digits = [&] {
      while (digit_at(end)) ++end;
    };
    if (at('-')) ++end;
    if (!digit_at(end)) return false;
    if (text_[end] == '0') {
      ++end;
    } else {
      skip_digits();
    }
    found.kind = Json::integer;
    if (end < text_.size() && text_[end] == '.' && digit_at(end + 1)) {
      found.kind = Json::real;
      ++end;
      skip_digits();
    }
    if (end < text_.size() && (text_[end] | 0x20) == 'e') {
      const bool has_sign = end + 1 < text_.size() && (text_[end + 1] == '+' || text_[end + 1] == '-');
      if (digit_at(end + (has_sign ? 2 : 1))) {
        found.kind = Json::real;
        end += has_sign ? 2 : 1;
        skip_digits();
      }
    }
    found.text = text_.substr(position, end - position);
    position = end;
    const size_t digits = found.text.size() - (found.text[0] == U'-' ? 1 : 0);
    if (found.kind == Json::integer && digits > kLongestInteger) {
      throw Error("Exceeds the limit (" + std::to_string(kLongestInteger) + ") for integer string conversion: value has " +
                  std::to_string(digits) + " digits");
    }
    return true;
  }

  std::u32string_view text_;
  bool refuses_twice_;
};

// What repr() shows of a float: the fewest digits that give the same number.
std::string float_repr(double number) {
  if (std::isnan(number)) return "nan";
  const double size = std::abs(number);
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  const bool is_plain = number == 0 || (size >= 1e-4 && size < 1e16);
  char buffer[32];
  const auto format = is_plain ? std::chars_format::fixed : std::chars_format::scientific;
  std::string text(buffer, std::to_chars(buffer, buffer + sizeof buffer, number, format).ptr);
  if (is_plain && text.find('.') == text.npos) text += ".0";
  return text;
}

void append_repr(std::u32string& out, const Json& value);

void append_repr(std::u32string& out, std::u32string_view text) {
  const char32_t quote = text.find(U'\'') != text.npos && text.find(U'"') == text.npos ? U'"' : U'\'';
  out += quote;
  for (const char32_t c : text) {
    const auto hex = [&](char letter, int digits) {
      out += U'\\';
      out += static_cast<char32_t>(letter);
      for (int shift = 4 * digits - 4; shift >= 0; shift -= 4) out += U"0123456789abcdef"[(c >> shift) & 15];
    };
    if (c == quote || c == '\\') {
      out += U'\\';
      out += c;
    } else if (c == '\t' || c == '\n' || c == '\r') {
      out += U'\\';
      out += c == '\t' ? U't' : c == '\n' ? U'n' : U'r';
    } else if (c < 0x20 || (c >= 0x7F && c < 0xA1) || c == 0xAD) {
      hex('x', 2);
    } else if (c >= 0xD800 && c <= 0xDFFF) {
      hex('u', 4);
    } else {
      out += c;
    }
  }
  out += quote;
}

void append_repr(std::u32string& out, const Json& value) {
  const auto ascii = [&](std::string_view text) { out.append(text.begin(), text.end()); };
  switch (value.kind) {
    case Json::null:
      ascii("None");
      break;
    case Json::boolean:
      ascii(value.text == U"true" ? "True" : "False");
      break;
    case Json::integer:
      out += value.text == U"-0" ? U"0" : value.text;
      break;
    case Json::real:
      ascii(float_repr(std::strtod(encode_utf8(value.text).c_str(), nullptr)));
      break;
    case Json::string:
      append_repr(out, value.text);
      break;
    case Json::array:
    case Json::object:
      out += value.kind == Json::array ? U'[' : U'{';
      for (size_t i = 0; i < value.items.size() && out.size() < 80; ++i) {
        if (i > 0) out += U", ";
        if (value.kind == Json::object) {
          append_repr(out, value.keys[i]);
          out += U": ";
        }
        append_repr(out, value.items[i]);
      }
      out += value.kind == Json::array ? U']' : U'}';
  }
}

}  // namespace

const Json* Json::find(std::u32string_view key) const {
  const auto place = std::find(keys.begin(), keys.end(), key);
  return place == keys.end() ? nullptr : &items[static_cast<size_t>(place - keys.begin())];
}

Json parse_json(std::u32string_view text) {
  Parser parser(text, true);
  parser.skip_space();
  auto value = parser.value();
  parser.skip_space();
  if (parser.position < text.size()) parser.fail("Extra data", parser.position);
  return value;
}

size_t parse_json_prefix(std::u32string_view text, Json& value) {
  Parser parser(text, false);
  value = parser.value();
  return parser.position;
}

std::string shown(const Json& value) {
  std::u32string repr;
  append_repr(repr, value);
  return encode_utf8(std::u32string_view(repr).substr(0, 60));
}

std::string shown(std::u32string_view text) {
  std::u32string repr;
  append_repr(repr, text);
  return encode_utf8(std::u32string_view(repr).substr(0, 60));
}

void append_json(std::string& json, std::string_view text) {
  json += '"';
  for (const char c : text) {
    constexpr std::string_view kControls = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
    const auto place = kControls.find(c);
    if (place != kControls.npos) {
      json += '\\';
      json += kLetters[place];
    } else if (static_cast<unsigned char>(c) < 0x20) {
      json += "\\u00";
      json += c < 0x10 ? '0' : '1';
      json += "0123456789abcdef"[c & 15];
    } else {
      json += c;
    }
  }
  json += '"';
}

void append_json(std::string& json, double number) { json += float_repr(number); }

}  // namespace ernie
