"""What this machine offers: cores, the processor's name and instructions."""

import os
import platform
import re


def usable_cores():
    """Number of cores this process may use; in a container often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def has_bf16():
    """Whether the processor has bfloat16 instructions; True where that cannot be told."""
    try:
        with open("/proc/cpuinfo") as f:
            return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", f.read()) is not None
    except OSError:
        return True


def processor():
    """The processor's name."""
    try:
        with open("/proc/cpuinfo") as f:
            return re.search(r"model name\s*: (.*)", f.read())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()
