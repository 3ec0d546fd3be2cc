#pragma once

#include <stdexcept>
#include <string>

namespace ernie {

// Something that the user can fix; the message names it.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// An argument that is wrong, by itself or for this model.
struct UsageError : Error {
  using Error::Error;
};

// A number as messages have it: 1,234,567.
inline std::string with_commas(size_t number) {
  auto text = std::to_string(number);
  for (size_t place = text.size(); place > 3;) text.insert(place -= 3, ",");
  return text;
}

}  // namespace ernie
