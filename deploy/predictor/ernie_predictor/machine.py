"""What this machine offers: cores, the processor's name and instructions, standard streams."""

import hashlib
import math
import os
import platform
import re
import sys


def usable_cores(root="/"):
    """Number of cores that this process may use: in a container often fewer than the machine has.

    Limited by the process's affinity and by the CPU quota of its control groups, which is how Docker's `--cpus` and
    Kubernetes' limits arrive. A part of a core counts as a whole one.

    Args:
        root: where /proc and /sys are found.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min([cores, *map(math.ceil, _quotas(root))]))


def _quotas(root):
    """CPU quotas in cores, of this process's control group and of all groups above it."""
    for line in _read(root, "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A container may see its own group as the root, and yet be told the host's path of it. So all are tried.
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for length in range(len(parts), -1, -1):
            path = "/".join(parts[:length])
            if not controllers:  # version 2
                quota, _, period = _read(root, "sys/fs/cgroup", path, "cpu.max").partition(" ")
            else:
                folder = ("sys/fs/cgroup/cpu", path)
                quota, period = (_read(root, *folder, f"cpu.cfs_{name}_us") for name in ("quota", "period"))
            # "max" and -1 mean that there is none.
            if quota.strip().isdecimal() and period.strip().isdecimal() and int(period) > 0:
                yield int(quota) / int(period)


def _read(*path):
    try:
        with open(os.path.join(*path), encoding="utf-8") as f:
            return f.read()
    except OSError:
        return ""


def _instructions():
    """The processor's instructions as /proc/cpuinfo lists them; empty where there is none (Windows, macOS)."""
    found = re.search(r"^(?:flags|Features)\s*: (.*)", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else ""


def _has(*names):
    return not {*names}.isdisjoint(_instructions().split())


def has_bf16():
    """Whether the processor has bfloat16 instructions; True where that cannot be told."""
    return not _instructions() or _has("avx512_bf16", "amx_bf16", "bf16")


def has_vnni():
    """Whether the processor adds products of uint8 and int8 in 32 bits, fast (x86: VNNI or AMX). False where that
    cannot be told.

    Others add them in pairs in 16 bits, which saturates (AMD before Zen 4, Intel's servers before Cascade Lake and
    desktops before Ice Lake). ARM's processors do not, but of the two engines only ONNX Runtime's kernels are known to
    be fast there.
    """
    return _has("avx512_vnni", "avx_vnni", "amx_int8")


def instruction_set(precision_mode):
    """The widest instructions that engines compute a precision with here: "AVX-512 VNNI"; for a line in a log."""
    names = {
        "int8": {"amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI", "i8mm": "I8MM",
                 "asimddp": "dot product"},
        "bf16": {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "bf16": "BF16"},
    }.get(precision_mode, {})  # fmt: skip
    names |= {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
    return next((name for flag, name in names.items() if _has(flag)), platform.machine())


def processor():
    """The processor's name."""
    name = re.search(r"model name\s*: (.*)", _read("/proc/cpuinfo"))
    return name[1] if name else platform.processor() or platform.machine()


def processor_kind():
    """The processor's name and what it computes INT8 with: "AMD EPYC (AVX-512 VNNI)". For figures of speed."""
    return f"{processor()} ({instruction_set('int8')})"


def processor_id():
    """12 hex digits for the processor's kind: its name and instructions. Clouds give one name to several kinds."""
    kind = (platform.machine(), processor(), _instructions())
    return hashlib.sha256("\n".join(kind).encode()).hexdigest()[:12]


def open_standard_streams():
    """Gives closed standard streams (`2>&-`) to /dev/null: a file that is opened would take the number of a closed one,
    and would then hold what libraries print."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  as long as the process lives
