#pragma once

#include <stdexcept>

namespace ernie {

// Something that the user can fix; the message names it.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace ernie
