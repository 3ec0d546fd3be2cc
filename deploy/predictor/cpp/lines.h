// Lines of input, as infer_cpu.py reads them: a text, two with a tab between them, or an object of JSON.
#pragma once

#include <string>
#include <string_view>

#include "tasks.h"

namespace ernie {

// The text or texts of a line of UTF-8, with or without its line break. Throws Error.
Pair parse_line(std::string_view line, const Task& task, bool is_first);

}  // namespace ernie
