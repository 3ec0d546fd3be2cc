// Text as code points, and what ERNIE's tokenizer makes of each.
#pragma once

#include <string>
#include <string_view>

namespace ernie {

// Throws Error, with the offset of the first byte that is wrong. Surrogates are not valid UTF-8.
std::u32string decode_utf8(std::string_view text);

// Halves of surrogate pairs, which have no UTF-8, become \ud800 ...
std::string encode_utf8(std::u32string_view text);

// A text that may hold any bytes, as a path may: those that are no UTF-8 become \udc80 ..., as Python prints them.
std::string valid_utf8(std::string_view text);

// Whether a text can be GBK or GB18030, in which many Chinese files are.
bool is_gb18030(std::string_view text);

// What the tokenizer makes of a character before it looks for wordpieces: lower-cased, decomposed and without accents,
// if asked for; a character that is a word by itself between spaces; nothing for one that is dropped.
std::u32string plain(char32_t character, bool lower_case);

}  // namespace ernie
