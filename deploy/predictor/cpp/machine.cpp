#include "machine.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

namespace ernie {
namespace {

// A quota in cores; infinite where the files say none.
double quota_of(const std::string& folder, bool is_version_2) {
  double quota = -1, period = -1;
  if (is_version_2) {
    std::ifstream(folder + "/cpu.max") >> quota >> period;  // "max" is no number
  } else {
    std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? quota / period : HUGE_VAL;
}

}  // namespace

bool has_vnni() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.rfind("flags", 0) != 0) continue;
    line += ' ';
    for (const auto* name : {" avx512_vnni ", " avx_vnni ", " amx_int8 "}) {
      if (line.find(name) != std::string::npos) return true;
    }
    break;
  }
  return false;
}

int usable_cores() {
  double cores = std::max(1U, std::thread::hardware_concurrency());
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    std::string number, controllers, group;
    std::istringstream fields(line);
    std::getline(std::getline(std::getline(fields, number, ':'), controllers, ':'), group);
    if (!controllers.empty() && (',' + controllers + ',').find(",cpu,") == std::string::npos) continue;
    const std::string root = controllers.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
    // A container may see its own group as the root, and yet be told the host's path of it: the groups above count, too.
    for (;; group.resize(std::min(group.rfind('/'), group.size()))) {
      cores = std::min(cores, std::ceil(quota_of(root + group, controllers.empty())));
      if (group.empty()) break;
    }
  }
  return std::max(1, static_cast<int>(cores));
}

}  // namespace ernie
