"""Starts Triton Inference Server on a model repository, with its administration restricted.

python run_triton.py models_tnews                                   HTTP on 8000, gRPC on 8001, metrics on 8002
python run_triton.py models_tnews --grpc_port 9001 --log-verbose=1   other flags go to tritonserver

Requests for shared memory, the model repository, tracing and logging are refused unless their header `admin-key` (over
gRPC `triton-grpc-protocol-admin-key`) has the value of the environment variable ADMIN_KEY. Without this variable, the
value is random, so they are always refused. --http-restricted-api and --grpc-restricted-protocol replace this.

Without a container, the server comes with the package nvidia-pytriton (x86-64 Linux, glibc 2.35 or later). It has the
Python backend, which is all that CPU models need. GPU models need NVIDIA's container, whose server is used there.
"""

import argparse
import importlib.util
import os
import platform
import re
import secrets
import shutil
import sys
import sysconfig
import tempfile

PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}
# What only an administrator may ask for: clients that may register shared memory can read that of the models.
RESTRICTED = "shared-memory,model-repository,trace,logging"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", help="folder that prepare_models.py wrote")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    for name, port in PORTS.items():
        parser.add_argument(f"--{name}_port", metavar="N", type=int, default=port, help=f"(default: {port})")
    args, more = parser.parse_known_args()
    if not os.path.isdir(args.repository):
        parser.error(f"{args.repository}: no such folder; prepare_models.py writes one")
    key = os.environ.get("ADMIN_KEY") or secrets.token_hex(32)
    if not re.fullmatch(r"[\w.~+/-]+=*", key, re.ASCII):
        sys.exit("run_triton.py: error: ADMIN_KEY: expected letters, digits and -._~+/")
    server, flags, environment = find_server()
    command = [
        server,
        f"--model-repository={args.repository}",
        *flags,
        # Otherwise, two servers on one machine would use each other's shared memory.
        f"--backend-config=python,shm-region-prefix-name=triton_{os.getpid()}_",
    ]
    for name in PORTS:
        command += [f"--{name}-address={args.host}", f"--{name}-port={getattr(args, f'{name}_port')}"]
    for flag in ("--http-restricted-api", "--grpc-restricted-protocol"):
        if not any(given.partition("=")[0] == flag for given in more):
            command.append(f"{flag}={RESTRICTED}:admin-key={key}")
    # Replaces this process: signals reach the server itself, and its exit status is ours.
    os.execve(command[0], command + more, environment)


def find_server():
    """(path of tritonserver, flags, environment variables) of nvidia-pytriton's server, or of the container's."""
    container = shutil.which("tritonserver")
    if container and importlib.util.find_spec("pytriton") is None:
        return container, [], os.environ
    triton = find_package("pytriton")
    try:
        backends = lay_out_backend(os.path.join(triton, "tritonserver"))
    except OSError as e:
        sys.exit(f"run_triton.py: error: {e.filename}: {e.strerror}")
    environment = {
        **os.environ,
        # The backend's program embeds its own interpreter. It looks for `python3` on PATH, and uses the packages of
        # that environment; from Python 3.11 on, it ignores PYTHONPATH.
        "PATH": os.pathsep.join([os.path.join(sys.prefix, "bin"), os.environ.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": os.pathsep.join(
            filter(
                None,
                [
                    os.path.join(os.path.dirname(triton), "nvidia_pytriton.libs"),
                    sysconfig.get_config_var("LIBDIR"),  # libpython
                    os.environ.get("LD_LIBRARY_PATH"),
                ],
            )
        ),
    }
    server = os.path.join(triton, "tritonserver", "bin", "tritonserver")
    return server, [f"--backend-directory={backends}", "--allow-gpu-metrics=false"], environment


def find_package(name):
    """The folder of nvidia-pytriton's package."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        sys.exit("run_triton.py: error: nvidia-pytriton is not installed: pip install nvidia-pytriton==0.7.0")
    libc, version = platform.libc_ver()
    if libc == "glibc" and tuple(map(int, version.split("."))) < (2, 35):
        sys.exit(f"run_triton.py: error: tritonserver needs glibc 2.35 or later, found {version}: use the container")
    return spec.submodule_search_locations[0]


def lay_out_backend(tritonserver):
    """Makes a backend directory in this environment: links to the Python backend, with the program for this Python.

    Returns:
        Its path.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    library = sysconfig.get_config_var("INSTSONAME") or f"libpython{version}.so"
    stub = os.path.join(tritonserver, "python_backend_stubs", version, "triton_python_backend_stub")
    if not os.path.isfile(stub):
        sys.exit(f"run_triton.py: error: nvidia-pytriton has no Python backend for Python {version}")
    if not library.startswith("libpython") or ".so" not in library:
        sys.exit(f"run_triton.py: error: Python {version} here has no shared library, libpython{version}.so")
    source = os.path.join(tritonserver, "backends", "python")
    target = os.path.join(sys.prefix, "triton_backends", "python")
    os.makedirs(target, exist_ok=True)
    for path in (*(os.path.join(source, n) for n in ("libtriton_python.so", "triton_python_backend_utils.py")), stub):
        # Linked under another name first: two servers may start at once.
        with tempfile.TemporaryDirectory(dir=target) as work:
            link = os.path.join(work, os.path.basename(path))
            os.symlink(path, link)
            os.replace(link, os.path.join(target, os.path.basename(path)))
    return os.path.dirname(target)


if __name__ == "__main__":
    main()
