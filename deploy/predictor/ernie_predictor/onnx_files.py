"""How an ONNX file is quantized: what config.json says, and what stands in the file's bytes."""

import contextlib
import functools
import json
import mmap
import os
import sys

from .files import stat_of

# Of a file that run_*.py or compress_*.py wrote, bytes in which all nodes stand, before the weights. Others can have
# weights among the nodes: they are searched to the end, which takes 0.1 s for 300 MB.
NODES = 2**22
# In the metadata of files whose INT8 products no processor saturates; see int8.widen_scales.
PAIRS_FIT = ("int8_pairs_of_products", "fit 16 bits")


def quantized_form(onnx_file):
    """How an ONNX file is quantized: "static" (with scales of its own), "dynamic" (scales while it runs), or None."""
    # Whatever config.json says: another file may have taken the place of the one that was written with it.
    if not _in_nodes(onnx_file, b"QuantizeLinear"):  # which both types hold: a file of floats is searched once
        return None
    kinds = {"static": "QuantizeLinear", "dynamic": "DynamicQuantizeLinear"}
    return next((form for form, op_type in kinds.items() if has_node(onnx_file, op_type)), None)


def has_node(onnx_file, op_type):
    """Whether an ONNX file has nodes of a type."""
    return _in_nodes(onnx_file, _field(4, op_type))  # NodeProto.op_type


def pairs_fit(onnx_file):
    """Whether the file says that its INT8 products saturate on no processor."""
    metadata = b"".join(_field(number, text) for number, text in enumerate(PAIRS_FIT, 1))
    return _search(onnx_file, mmap.mmap.rfind, metadata)  # it stands at the end


def _in_nodes(onnx_file, content):
    return _search(onnx_file, mmap.mmap.find, content, 0, NODES if _said(onnx_file) else sys.maxsize)


def _said(onnx_file):
    """`quantization` in the config.json of a model folder; None where it says nothing."""
    folder, name = os.path.split(onnx_file)
    config = os.path.join(folder, "config.json")
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError), open(config, encoding="utf-8") as f:
        said = json.load(f)["quantization"]
        return said if name == "model.onnx" and said in ("none", "static", "dynamic", "embeddings") else None
    return None


def _field(number, text):
    """Protobuf's bytes of a field that holds a text of at most 127 bytes."""
    return bytes([number << 3 | 2, len(text)]) + text.encode()


def _search(onnx_file, find, *arguments):
    """Whether a file has some bytes. Each question is answered once, until the file changes."""
    return _searched(os.fspath(onnx_file), find, arguments, *stat_of(onnx_file).values())


@functools.lru_cache(maxsize=64)
def _searched(onnx_file, find, arguments, size, *_):
    if size == 0:  # which can't be mapped
        return False
    with open(onnx_file, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return find(mapped, *arguments) >= 0
