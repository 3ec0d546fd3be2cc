"""Files: JSON written atomically, what can be written at all, and hashes of content.

Atomic writing itself is the predictor's (ernie_predictor/files.py): one way for training and deployment.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile

import numpy as np
from ernie_predictor.files import file_hash, new_folder, work_folder, write_text

from ernie.errors import UserError

__all__ = ["file_hash", "new_folder", "work_folder", "write_text"]


def write_json(path, content):
    """Writes a JSON file atomically.

    Raises:
        UserError: a number is none (NaN) or infinite; names the file.
    """
    try:
        text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False)
    except ValueError as e:
        raise UserError(f"{path} would hold a number that is none (NaN) or infinite: the model has diverged") from e
    write_text(path, text + "\n")


def check_writable(folder, flag="--output_dir"):
    """Raises UserError if a folder cannot be written, before hours of work are lost."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise UserError(f"{flag} {folder} can't be written: {e.strerror}") from e


def check_replaceable(path, flag="--output_dir"):
    """Raises UserError if `new_folder` could not replace a folder, before hours of work are lost."""
    target = os.path.realpath(path)
    if os.path.lexists(target) and not os.path.isdir(target):
        raise UserError(f"{flag}: {path} is in the way: expected a folder of that name, or none. Move it away")
    if _is_mount_point(target):
        raise UserError(
            f"{flag}: {path} is a mount point, which can't be replaced by a new folder: mount the folder above it, or "
            "make it a link to a folder inside the mounted one"
        )
    if os.path.isdir(target) and not os.access(target, os.W_OK):
        raise UserError(f"{flag}: {path} can't be replaced: no permission to write to it")
    check_writable(os.path.dirname(target), flag)


def _is_mount_point(path):
    """Also of the same file system (mount --bind), which os.path.ismount does not see."""
    escaped = re.sub(r"[ \t\n\\]", lambda match: f"\\{ord(match[0]):03o}", path)
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        if escaped in (line.split(" ")[4] for line in f):
            return True
    return os.path.ismount(path)


def copy_config_and_tokenizer(source, target, quantization):
    """Copies what a variant shares with the one it is made from.

    Args:
        quantization: what config.json is to say: "static" (INT8 with calibrated scales, whether or not the embedding
            tables are quantized, too) or "embeddings" (nothing but these).
    """
    for name in os.listdir(source):
        path = os.path.join(source, name)
        if os.path.isfile(path) and name.endswith((".json", ".txt")) and name != "metrics.json":
            shutil.copyfile(path, os.path.join(target, name))
    with open(os.path.join(source, "config.json"), encoding="utf-8") as f:
        write_json(os.path.join(target, "config.json"), {**json.load(f), "quantization": quantization})


def width_name(width_mult):
    """The folder of a width: width_mult_0.75 as in PaddleNLP, but with four digits, width_mult_0.6667."""
    return f"width_mult_{round(width_mult, 4)}"


# Identity by content


def content_hash(*parts):
    """16 hex digits that change with any of the parts: arrays, bytes, texts, or what JSON can hold."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            part = np.ascontiguousarray(part)
        elif not isinstance(part, bytes):
            part = json.dumps(part, ensure_ascii=False, sort_keys=True).encode()
        digest.update(part)
    return digest.hexdigest()[:16]
