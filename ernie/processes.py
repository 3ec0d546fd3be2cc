"""Several processes under paddle.distributed.launch, on one machine or several: what they wait for and share."""

import itertools
import os
import tempfile
import time

import paddle
from paddle.base import core

from ernie.errors import UsageError, UserError

LIMIT = 300  # seconds that the first process waits for the others
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
        deadline = time.monotonic() + LIMIT
        while (count := store.add(key, 0)) < world_size:
            if first and time.monotonic() > deadline:
                raise UserError(f"{world_size - count} of {world_size} processes did not answer within {LIMIT} seconds")
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
