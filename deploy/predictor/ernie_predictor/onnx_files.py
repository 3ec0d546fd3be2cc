"""What an ONNX file says of itself, read without a package for ONNX."""

import contextlib
import functools
import os

from .files import stat_of

# In the metadata of files whose INT8 products no processor saturates; see int8.widen_scales.
PAIRS_FIT = ("int8_pairs_of_products", "fit 16 bits")


def quantized_form(onnx_file):
    """How an ONNX file is quantized: "static" (with scales of its own), "dynamic" (scales while it runs), or None."""
    kinds, _ = contents(onnx_file)
    return "static" if "QuantizeLinear" in kinds else "dynamic" if "DynamicQuantizeLinear" in kinds else None


def pairs_fit(onnx_file):
    """Whether the file says that its INT8 products saturate on no processor."""
    _, metadata = contents(onnx_file)
    return PAIRS_FIT in metadata


def contents(onnx_file):
    """({types of the nodes}, {(key, value) of the metadata}) of an ONNX file; of a damaged one, as far as it can be
    read. A file is read once: that takes some milliseconds, and several ask.
    """
    return _read(os.fspath(onnx_file), *stat_of(onnx_file).values())


@functools.lru_cache(maxsize=32)
def _read(onnx_file, *_):
    """See `contents`; the other arguments tell the file from what it was before.

    Reads protobuf's encoding itself and steps over the weights: ModelProto.graph is field 7 and metadata_props field
    14, GraphProto.node field 1, NodeProto.op_type field 4, StringStringEntryProto's key and value fields 1 and 2.
    """
    kinds, metadata = set(), set()

    def number(f):
        value = shift = 0
        while shift < 64:
            byte = f.read(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
        raise ValueError("no number of protobuf")

    def fields(f, end):
        """Yields (field, end of its content) at the beginning of each content that has a length."""
        while f.tell() < end:
            key = number(f)
            if key & 7 == 2:
                stop = number(f) + f.tell()
                yield key >> 3, stop
                f.seek(stop)
            elif key & 7 == 0:
                number(f)
            else:
                f.seek({1: 8, 5: 4}[key & 7], os.SEEK_CUR)

    def text(f, end):
        return f.read(end - f.tell()).decode("utf-8", "replace")

    with open(onnx_file, "rb") as f, contextlib.suppress(IndexError, KeyError, ValueError, OverflowError, OSError):
        for part, part_end in fields(f, os.path.getsize(onnx_file)):
            if part == 7:
                for field, node_end in fields(f, part_end):
                    if field == 1:
                        kinds.update(text(f, end) for field, end in fields(f, node_end) if field == 4)
            elif part == 14:
                metadata.add(tuple(text(f, end) for _, end in fields(f, part_end)))
    return frozenset(kinds), frozenset(metadata)
