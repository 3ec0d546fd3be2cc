"""What today's releases break, mended in one place. Import this before Paddle: `import workarounds`.

Each entry says what breaks, where it was reported, and what would end it, so that it can be deleted the day
the release is mended. What depends on Paddle's major version is in ernie/: static_model, onnx_graph, paddle_int8,
and the Trainer's own methods that training overrides.
"""

# Paddle 2.6's libpaddle.so exports zlib symbols of its own; a zlib that is loaded behind it crashes in
# inflateReset2 when any module inflates at import (PaddlePaddle/Paddle#70538). Ends with Paddle 3.
import zlib  # noqa: F401  isort: skip

import ctypes
import fcntl
import os
import platform
import re
import socket
import struct
import sys
import warnings

# The predictor's package is used by path, as users run it: this is the one place that says where it is.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "deploy", "predictor"))

from ernie_predictor.machine import open_standard_streams, usable_cores

open_standard_streams()


def check_home():
    """paddlenlp 2.8.1 makes folders when it is imported, and ends with a traceback where it can't: in a container that
    is read-only, or that runs as a user without a home. Ends when it makes them on its first download.
    """
    home = os.environ.get("PPNLP_HOME", os.path.join(os.path.expanduser("~"), ".paddlenlp"))
    try:
        for name in ("models", "datasets", "packages"):
            os.makedirs(os.path.join(home, name), exist_ok=True)
    except OSError as e:
        sys.exit(
            f"{os.path.basename(sys.argv[0])}: error: {home}, PaddleNLP's folder for downloads, can't be written "
            f"({e.strerror}): set PPNLP_HOME=DIR to another one"
        )
    if not os.access(os.path.expanduser("~"), os.W_OK | os.X_OK):
        os.environ["HOME"] = os.path.abspath(home)  # where Paddle's export, VisualDL and Matplotlib write


check_home()

# paddlenlp 2.8.1 imports setuptools behind distutils, and Paddle warns of its own `to_static` defaults: nothing
# that a user could act on.
warnings.filterwarnings("ignore", message="Setuptools is replacing distutils")
warnings.filterwarnings("ignore", message="full_graph=False don't support input_spec")


def open_fast_matmul(cpuinfo=None):
    """Paddle's bundled MKL looks at the vendor, not at the instruction set, and takes its slowest path on AMD.

    MKL_DEBUG_CPU_TYPE tells it what the processor can do: 5 is AVX2, 7 is AVX-512. A training step of ERNIE
    3.0-Nano takes less than half the time with it. A value beyond the processor would crash, so it is set from the
    processor's own flags, never over the user's value. Ends when Paddle links a newer MKL or oneDNN there.
    """
    if cpuinfo is None and os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as f:
            cpuinfo = f.read()
    found = re.search(r"^vendor_id\s*: AuthenticAMD$.*?^flags\s*: (.*?)$", cpuinfo or "", re.DOTALL | re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    if flags >= {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "7")
    elif flags >= {"avx2", "fma"}:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


open_fast_matmul()

# Paddle's C++ part tells of its executor ("New Executor is Running."): warnings only. Never over the user's value.
os.environ.setdefault("GLOG_minloglevel", "1")


def use_all_cores():
    """Paddle sets OMP_NUM_THREADS to 1 on import, and so computes on one core whatever the machine has.

    MKL_NUM_THREADS comes before it: a training step of ERNIE 3.0-Nano is 1.2 times faster on 2 cores. Processes
    of one machine under paddle.distributed.launch share its cores. Never over the user's value.
    """
    processes = int(os.environ.get("PADDLE_LOCAL_SIZE", 1))
    os.environ.setdefault("MKL_NUM_THREADS", str(max(usable_cores() // processes, 1)))


use_all_cores()


def keep_freed_memory():
    """Paddle takes every tensor on the CPU anew from malloc, and glibc gives large blocks back at once: each
    operator then faults its pages in again, an eighth of the time of a training step at length 512. These
    thresholds let the process keep up to 1 GB for the next operator. Ends when Paddle pools memory on CPUs, too.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(m_trim_threshold, 2**30)
    libc.mallopt(m_mmap_threshold, 2**25)  # glibc's maximum


keep_freed_memory()


def choose_network_interface():
    """Among several nodes, gloo listens at the address of the machine's name, which many systems set to 127.0.0.1 or
    127.0.1.1 in /etc/hosts: "Connection refused" (PaddlePaddle/Paddle#37951).

    GLOO_SOCKET_IFNAME comes before it: the interface of the address that paddle.distributed.launch was given (--host).
    Never over the user's value. Ends when Paddle passes that address to gloo.
    """
    if int(os.environ.get("PADDLE_NNODES", 1)) == 1 or os.environ.get("GLOO_SOCKET_IFNAME"):
        return
    host = os.environ.get("PADDLE_CURRENT_ENDPOINT", "").rpartition(":")[0]
    get_address = 0x8915  # SIOCGIFADDR of Linux
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(s, get_address, struct.pack("256s", name.encode()))
            except OSError:  # it has no address
                continue
            if socket.inet_ntoa(found[20:24]) == host:
                os.environ["GLOO_SOCKET_IFNAME"] = name


choose_network_interface()
