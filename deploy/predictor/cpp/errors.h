#pragma once

#include <stdexcept>

namespace ernie {

// Something that the user can fix; the message names it.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// An argument that is wrong, by itself or for this model.
struct UsageError : Error {
  using Error::Error;
};

}  // namespace ernie
