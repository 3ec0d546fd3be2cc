"""Several processes: those of one training, under paddle.distributed.launch, and those that are in each other's way."""

import contextlib
import functools
import itertools
import json
import os
import platform
import tempfile
import time

import paddle
from ernie_predictor.files import started, system
from paddle.base import core

from ernie import console
from ernie.console import logger
from ernie.errors import UsageError, UserError
from ernie.files import write_json

IN_USE = ".in_use."  # how the marks of folders begin
LIMIT = 3600  # seconds that the first process waits for the others: one may download or tokenize for long
TELL = 60  # seconds after which it says so
_rounds = itertools.count()


def wait_for_all():
    """Returns when every process has called it: for where one works for minutes while the others wait.

    The processes count in Paddle's store: over gloo, paddle.distributed.barrier() fails after 30 seconds, which Paddle
    2.6 has no option for. The store is the first process's: if that ends, the others fail at once.

    Raises:
        UserError: in the first process, some have not come within `LIMIT` seconds.
    """
    world_size, first = paddle.distributed.get_world_size(), paddle.distributed.get_rank() == 0
    if world_size == 1:
        return
    store, key = core.create_or_get_global_tcp_store(), f"ernie/{next(_rounds)}"

    def wait(key):
        begin, told = time.monotonic(), False
        while (count := store.add(key, 0)) < world_size:
            waited, missing = time.monotonic() - begin, f"{world_size - count} of {world_size} processes"
            if first and waited > LIMIT:
                raise UserError(f"{missing} did not answer within {LIMIT} seconds")
            if first and waited > TELL and not told:
                console.row("waiting", f"for {missing}, at most {LIMIT // 60} minutes")
                told = True
            time.sleep(0.01)

    store.add(key, 1)
    wait(key)
    # The first process may end after this call, and must not take the store away from one that still asks.
    store.add(f"{key}/seen", 1)
    if first:
        wait(f"{key}/seen")


def gather(value):
    """[the value of each process], by rank: the same list in every process."""
    if paddle.distributed.get_world_size() == 1:
        return [value]
    wait_for_all()
    values = []
    paddle.distributed.all_gather_object(values, value)
    return values


def check_shared(args):
    """Raises UsageError in every process where several nodes can't work on --output_dir as --save_on_each_node says.

    Without it the first process alone writes, and all read; with it a process of each node writes the same files.
    """
    nodes = int(os.environ.get("PADDLE_NNODES", 1))
    if nodes == 1 or paddle.distributed.get_world_size() == 1:
        return
    with tempfile.NamedTemporaryFile(prefix=".node-", dir=args.output_dir) as mine:
        first = gather(os.path.basename(mine.name))[0]
        seen = gather(os.path.exists(os.path.join(args.output_dir, first)))
    if not all(seen) and not args.save_on_each_node:
        raise UsageError(
            f"--output_dir {args.output_dir}: {nodes} nodes, and not all see the same folder. Put it on a disk that "
            "they share, or add --save_on_each_node, which writes all files on each node"
        )
    if all(seen) and args.save_on_each_node:
        raise UsageError(
            f"--save_on_each_node: all {nodes} nodes see the same --output_dir {args.output_dir}, and would overwrite "
            "each other's files. Leave it out"
        )


# Two commands in one folder


def alone(method):
    """For a method that trains or compresses: refuses where another command does so in --output_dir, or where several
    nodes can't (`check_shared`)."""

    @functools.wraps(method)
    def in_its_folder(self, *args, **kwargs):
        with alone_in(self.args.output_dir) if self.args.should_save else contextlib.nullcontext():
            check_shared(self.args)
            return method(self, *args, **kwargs)

    return in_its_folder


@contextlib.contextmanager
def alone_in(folder):
    """Marks a folder as this process's while the block runs.

    Each process has a mark of its own, and looks for others' once it is written. So no lock of the file system is
    needed, of two that begin at once none takes the other's place, and a mark that a killed process left does no harm.

    Raises:
        UserError: another process of this machine works there.
    """
    os.makedirs(folder, exist_ok=True)
    host, pid = platform.node(), os.getpid()
    mine = os.path.join(folder, f"{IN_USE}{host}.{pid}")
    write_json(mine, {"host": host, "pid": pid, "system": system(), "started": started(pid)})
    try:
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if not name.startswith(IN_USE) or path == mine:
                continue
            try:
                with open(path, encoding="utf-8") as f:
                    other = json.load(f)
            except FileNotFoundError:  # it has ended meanwhile
                continue
            if other["system"] == system() and other["started"] == started(other["pid"]):
                raise UserError(
                    f"another process (pid {other['pid']}) trains or compresses in {folder}: wait until it has ended, "
                    "or choose another --output_dir"
                )
            if other["host"] == host:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)
            else:
                logger.warning(
                    f"{folder} may be in use by process {other['pid']} of {other['host']}, which can't be seen from "
                    f"here; if it has ended, remove {path}"
                )
        yield
    finally:
        with contextlib.suppress(OSError):
            os.remove(mine)
