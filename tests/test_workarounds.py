"""Each workaround does what its entry says, and the sampler of training."""

import workarounds

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from ernie.training import LengthGroupedBatchSampler

AVX512 = "avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("vendor", "flags", "user", "expected"),
    [
        ("AuthenticAMD", "sse avx avx2 fma", None, "5"),
        ("AuthenticAMD", f"sse avx avx2 fma {AVX512}", None, "7"),
        ("AuthenticAMD", "sse avx avx2 fma avx512f", None, "5"),
        ("AuthenticAMD", "sse avx", None, None),
        ("GenuineIntel", f"sse avx avx2 fma {AVX512}", None, None),
        ("AuthenticAMD", "sse avx avx2 fma", "1", "1"),
    ],
)
def test_the_fast_matrix_products_of_mkl(monkeypatch, vendor, flags, user, expected):
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE", raising=False)
    if user:
        monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", user)
    workarounds.open_fast_matmul(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    assert os.environ.get("MKL_DEBUG_CPU_TYPE") == expected


def test_mkl_uses_the_cores_that_it_may(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    for processes, user, expected in (("1", None, cores), ("2", None, max(cores // 2, 1)), ("1", "3", 3)):
        monkeypatch.setenv("PADDLE_LOCAL_SIZE", processes)
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
        if user:
            monkeypatch.setenv("MKL_NUM_THREADS", user)
        workarounds.use_all_cores()
        assert os.environ["MKL_NUM_THREADS"] == str(expected)


@pytest.mark.parametrize(("nodes", "user", "expected"), [("2", "", "lo"), ("2", "eth7", "eth7"), ("1", "", "")])
def test_gloo_takes_the_interface_of_the_launchers_address(monkeypatch, nodes, user, expected):
    monkeypatch.setenv("PADDLE_NNODES", nodes)
    monkeypatch.setenv("PADDLE_CURRENT_ENDPOINT", "127.0.0.1:6170")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", user)
    workarounds.choose_network_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == expected


@pytest.mark.parametrize("first", ["ernie.features", "run_qa"])
def test_whatever_is_imported_first_zlib_stands_before_paddle(first):
    code = f"import sys; sys.path.insert(0, '.'); import {first}; names = list(sys.modules); "
    code += "assert names.index('zlib') < names.index('paddle')"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# ------------------------------------------------------------------------------------------------- sampler


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("count", [1, 7, 64, 1000])
def test_batches_by_length_hold_every_text_once_an_epoch(count, replicas):
    lengths = np.random.default_rng(0).integers(3, 100, count)
    ranks = []
    for rank in range(replicas):
        sampler = LengthGroupedBatchSampler(lengths, 8, seed=1, num_replicas=replicas, rank=rank)
        sampler.set_epoch(2)
        ranks.append(list(sampler))
        assert len(ranks[-1]) == len(sampler)
        assert list(sampler) == ranks[-1], "seed and epoch alone make the order"
        sampler.set_epoch(3)
        assert count < 8 or list(sampler) != ranks[-1]
    assert len({tuple(len(batch) for batch in batches) for batches in ranks}) == 1
    indices = [i for batches in ranks for batch in batches for i in batch]
    assert set(indices) == set(range(count))
    assert len(indices) == -(-count // replicas) * replicas


def test_batches_by_length_need_less_padding():
    lengths = np.random.default_rng(0).integers(3, 128, 2000)
    grouped = sum(max(lengths[b]) * len(b) for b in LengthGroupedBatchSampler(lengths, 32, seed=0))
    order = np.random.default_rng(1).permutation(2000)
    shuffled = sum(max(lengths[order[i : i + 32]]) * len(order[i : i + 32]) for i in range(0, 2000, 32))
    assert grouped < 1.1 * lengths.sum()
    assert shuffled > 1.7 * lengths.sum()
