#include "unicode.h"

#include <unicode/uchar.h>
#include <unicode/ucnv.h>
#include <unicode/unorm2.h>
#include <unicode/ustring.h>
#include <unicode/utf16.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "errors.h"

namespace ernie {
namespace {

// The version that models are trained with, and the Python predictor's (ernie_predictor/unicode_13.py). Characters that
// Unicode got later are dropped as unassigned ones are, whatever version ICU has.
constexpr UVersionInfo kUnicodeVersion = {13, 0, 0, 0};
static_assert(U_ICU_VERSION_MAJOR_NUM >= 66, "ICU 66 or later is needed, for Unicode 13");

// PaddleNLP splits these off as well, besides Unicode's categories P and S.
constexpr std::u32string_view kExtraSymbols = U"\u00ad\u00b2\u00ba\u3007\u00b5\u00d8\u014b\u01b1";

constexpr std::array<std::pair<char32_t, char32_t>, 6> kIdeographs = {{
    {0x3400, 0x4dbf},
    {0x4e00, 0x9fff},
    {0xf900, 0xfaff},
    {0x20000, 0x2a6df},
    {0x2a700, 0x2ceaf},
    {0x2f800, 0x2fa1f},
}};

bool is_ideograph(char32_t c) {
  return std::any_of(kIdeographs.begin(), kIdeographs.end(),
                     [c](auto range) { return range.first <= c && c <= range.second; });
}

bool is_new(char32_t c) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(c), age);
  return std::lexicographical_compare(std::begin(kUnicodeVersion), std::end(kUnicodeVersion), std::begin(age),
                                      std::end(age));
}

// U_MASK of the category that Unicode 13 gave the character.
uint32_t category(char32_t c) {
  if (c == 0x1734 || c == 0x1171e) {  // Mc since Unicode 14 and 16: the only ones whose change shows in wordpieces
    return U_GC_MN_MASK;
  }
  return U_GET_GC_MASK(static_cast<UChar32>(c));
}

bool is_dropped(char32_t c) {
  if (c == '\t' || c == '\n' || c == '\r') {
    return false;
  }
  return c == 0xfffd || (category(c) & U_GC_C_MASK) != 0;
}

bool is_space(char32_t c) { return c == '\t' || c == '\n' || c == '\r' || (category(c) & U_GC_Z_MASK) != 0; }

bool stands_alone(char32_t c) {
  if (c < 0x80) {
    return (category(c) & (U_GC_L_MASK | U_GC_N_MASK)) == 0;
  }
  return (category(c) & (U_GC_P_MASK | U_GC_S_MASK)) != 0 || kExtraSymbols.find(c) != std::u32string_view::npos;
}

// A character's forms are short: the longest, U+FDFA's, has 18 UTF-16 units, and is no canonical one.
using Utf16 = std::array<UChar, 32>;

void check(UErrorCode status) {
  if (U_FAILURE(status)) {
    throw Error(std::string("ICU: ") + u_errorName(status));
  }
}

std::u32string code_points(const Utf16& text, int32_t length) {
  std::u32string result;
  for (int32_t position = 0; position < length;) {
    UChar32 c;
    U16_NEXT(text.data(), position, length, c);
    result += static_cast<char32_t>(c);
  }
  return result;
}

// By itself, without its neighbours: Python lower-cases a capital sigma to σ there, not to ς.
std::u32string lower_case(char32_t c) {
  Utf16 from, to;
  int32_t length = 0;
  U16_APPEND_UNSAFE(from.data(), length, static_cast<UChar32>(c));
  UErrorCode status = U_ZERO_ERROR;
  const int32_t size = u_strToLower(to.data(), static_cast<int32_t>(to.size()), from.data(), length, "", &status);
  check(status);
  return code_points(to, size);
}

// Canonically decomposed (NFD), without accents (category Mn).
std::u32string without_accents(const std::u32string& text) {
  UErrorCode status = U_ZERO_ERROR;
  static const UNormalizer2* nfd = unorm2_getNFDInstance(&status);
  check(status);
  Utf16 from, to;
  int32_t length = 0;
  for (const char32_t c : text) {
    U16_APPEND_UNSAFE(from.data(), length, static_cast<UChar32>(c));
  }
  const int32_t size =
      unorm2_normalize(nfd, from.data(), length, to.data(), static_cast<int32_t>(to.size()), &status);
  check(status);
  std::u32string result = code_points(to, size);
  result.erase(std::remove_if(result.begin(), result.end(), [](char32_t c) { return category(c) == U_GC_MN_MASK; }),
               result.end());
  return result;
}

// A surrogate, as Python's "backslashreplace" writes it.
void append_escaped(std::string& text, char32_t c) {
  text += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) text += "0123456789abcdef"[(c >> shift) & 15];
}

}  // namespace

std::u32string decode_utf8(std::string_view text) {
  std::u32string result;
  result.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    UChar32 c;
    U8_NEXT(text.data(), position, text.size(), c);
    if (c < 0) {
      throw Error("not valid UTF-8 at byte " + std::to_string(begin));
    }
    result += static_cast<char32_t>(c);
  }
  return result;
}

std::string encode_utf8(std::u32string_view text) {
  std::string result;
  for (const char32_t c : text) {
    if (U_IS_SURROGATE(c)) {
      append_escaped(result, c);
      continue;
    }
    std::array<char, U8_MAX_LENGTH> bytes;
    int32_t length = 0;
    U8_APPEND_UNSAFE(bytes.data(), length, static_cast<UChar32>(c));
    result.append(bytes.data(), static_cast<size_t>(length));
  }
  return result;
}

std::string valid_utf8(std::string_view text) {
  std::string result;
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    UChar32 c;
    U8_NEXT(text.data(), position, text.size(), c);
    if (c >= 0) {
      result += text.substr(begin, position - begin);
      continue;
    }
    for (size_t i = begin; i < position; ++i) append_escaped(result, 0xDC00 + static_cast<unsigned char>(text[i]));
  }
  return result;
}

bool is_gb18030(std::string_view text) {
  UErrorCode status = U_ZERO_ERROR;
  UConverter* converter = ucnv_open("gb18030", &status);
  ucnv_setToUCallBack(converter, UCNV_TO_U_CALLBACK_STOP, nullptr, nullptr, nullptr, &status);
  std::u16string decoded(2 * text.size() + 1, u' ');
  ucnv_toUChars(converter, decoded.data(), static_cast<int32_t>(decoded.size()), text.data(),
                static_cast<int32_t>(text.size()), &status);
  ucnv_close(converter);
  return U_SUCCESS(status);
}

std::u32string plain(char32_t character, bool in_lower_case) {
  if (is_new(character)) {
    return {};
  }
  std::u32string text = in_lower_case ? lower_case(character) : std::u32string(1, character);
  text.erase(std::remove_if(text.begin(), text.end(), is_dropped), text.end());
  const bool alone = text.size() == 1 && is_ideograph(text[0]);
  if (in_lower_case) {
    text = without_accents(text);
  }
  std::u32string result;
  for (const char32_t c : text) {
    if (is_space(c)) {
      result += U' ';
    } else if (alone || stands_alone(c)) {
      result += {U' ', c, U' '};
    } else {
      result += c;
    }
  }
  return result;
}

}  // namespace ernie
