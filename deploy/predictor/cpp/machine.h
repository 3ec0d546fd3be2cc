#pragma once

namespace ernie {

// Number of cores that this process may use, by its affinity and by the CPU quota of its control groups.
int usable_cores();

}  // namespace ernie
