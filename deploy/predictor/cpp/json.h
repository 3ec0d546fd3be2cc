// JSON as Python's json module reads and writes it: NaN and halves of surrogate pairs are read, too, the fields of an
// object keep their order, and messages are the same. An object that has a field twice is refused.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "errors.h"

namespace ernie {

struct Json {
  enum Kind { null, boolean, integer, real, string, array, object };

  Kind kind = null;
  // A string's characters, among which may be halves of surrogate pairs; of a number or boolean, as it is written.
  std::u32string text;
  std::vector<Json> items;           // an array's, or the values of an object
  std::vector<std::u32string> keys;  // an object's

  const Json* find(std::u32string_view key) const;  // an object's value; nullptr where there is none
};

// Throws Error where `text` is no JSON value, or an object in it has a field twice.
Json parse_json(std::u32string_view text);

// Reads one value, from its first character on, and returns where it ends. A field may come twice. Throws Error.
size_t parse_json_prefix(std::u32string_view text, Json& value);

// A value as Python's repr() shows it, at most 60 characters of it, for messages.
std::string shown(const Json& value);
std::string shown(std::u32string_view text);

// What json.dumps(..., ensure_ascii=False) writes.
void append_json(std::string& json, std::string_view text);
void append_json(std::string& json, double number);

}  // namespace ernie
