"""Training on two nodes: network namespaces with a link between them, and a disk of its own for each."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid

import pytest
from conftest import ROOT, arguments_for, call, read
from test_train import checkpoints


@pytest.fixture
def nodes():
    """For both nodes: (the name of its network namespace, its address)."""
    names = [f"node-{uuid.uuid4().hex[:8]}-{i}" for i in range(2)]
    nodes = [(name, f"10.77.0.{i + 1}") for i, name in enumerate(names)]
    commands = [f"ip netns add {name}" for name in names]
    commands += [f"ip link add eth0 netns {names[0]} type veth peer name eth0 netns {names[1]}"]
    for name, address in nodes:
        commands += [f"ip -n {name} addr add {address}/24 dev eth0"]
        commands += [f"ip -n {name} link set {device} up" for device in ("lo", "eth0")]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {command}: {done.stderr.strip()}")
        yield nodes
    finally:
        for name in names:
            kill(name)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def kill(node):
    """SIGKILLs everything that runs on a node."""
    for pid in subprocess.run(["ip", "netns", "pids", node], capture_output=True, text=True).stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def launch(nodes, folder, *arguments):
    """Starts the same training on both nodes, as docs/training.md says; returns their processes."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PADDLE_")} | {"MKL_NUM_THREADS": "1"}
    processes = []
    for rank, (name, address) in enumerate(nodes):
        command = ["ip", "netns", "exec", name, sys.executable, "-m", "paddle.distributed.launch"]
        command += ["--nnodes", 2, "--rank", rank, "--master", f"{nodes[0][1]}:8090", "--host", address]
        command += ["--nproc_per_node", 1, "--log_dir", folder / f"log{rank}", "run_seq_cls.py", *arguments]
        command += ["--output_dir", folder / f"disk{rank}", "--save_on_each_node"]
        command = list(map(str, command))
        devnull = subprocess.DEVNULL
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=devnull, stderr=devnull))
    return processes


def steps_on(disk):
    return {int(name.rpartition("-")[2]) for name in checkpoints(disk)}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ip") is None, reason="network namespaces need iproute2")
def test_two_nodes_of_which_one_is_killed(nodes, tmp_path, tiny_model):
    """The other one ends at once; both resume from the same step, and score as one process does."""
    disks = [tmp_path / "disk0", tmp_path / "disk1"]
    arguments = arguments_for("afqmc", tiny_model, "unused", "--do_train", "--do_eval", "--max_steps", 160)
    arguments += ["--per_device_train_batch_size", 8, "--save_steps", 40, "--logging_steps", 90]
    arguments += ["--save_total_limit", 9]

    def logs():
        return "".join(path.read_text() for path in sorted(tmp_path.glob("log*/workerlog.*")))

    first, second = launch(nodes, tmp_path, *arguments)
    deadline = time.monotonic() + 300
    while "   90/160" not in logs():
        assert first.poll() is second.poll() is None and time.monotonic() < deadline, logs()[-3000:]
        time.sleep(0.05)
    kill(nodes[1][0])
    assert first.wait(timeout=60) != 0 and second.wait() != 0
    assert not (disks[0] / "afqmc/model_state.pdparams").exists()
    # As if the kill had come while the second node wrote its checkpoint: it resumes from the one before, as must both.
    (disks[1] / f"afqmc/checkpoint-{max(steps_on(disks[1]))}" / "complete.json").unlink()
    last = max(steps_on(disks[0]) & steps_on(disks[1]))

    processes = launch(nodes, tmp_path, *arguments)
    assert [process.wait(timeout=300) for process in processes] == [0, 0], logs()[-3000:]
    assert f"epochs, from step {last};" in logs()
    for name in ("model_state.pdparams", "metrics.json"):
        assert (disks[0] / "afqmc" / name).read_bytes() == (disks[1] / "afqmc" / name).read_bytes()
    # One process with a batch of both sizes takes the same steps.
    call("run_seq_cls", *arguments, "--output_dir", tmp_path / "one", "--per_device_train_batch_size", 16)
    one, two = (read(folder / "afqmc/metrics.json")["accuracy"] for folder in (tmp_path / "one", disks[0]))
    assert two == pytest.approx(one, abs=0.02)
