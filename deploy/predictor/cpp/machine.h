#pragma once

namespace ernie {

// Number of cores that this process may use, by its affinity and by the CPU quota of its control groups.
int usable_cores();

// Whether the processor adds products of uint8 and int8 in 32 bits (x86: VNNI or AMX). Others add them in pairs in 16
// bits, which saturates.
bool has_vnni();

}  // namespace ernie
