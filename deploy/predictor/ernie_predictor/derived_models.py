"""Files made from a folder's model.onnx, once: quantized models, and compiled ones, which open faster.

They lie in a cache, in folders named after the content of their source, so that another model never gets their answers.
A file's own name is the hash of its content: a damaged one is made again.
"""

import contextlib
import glob
import hashlib
import os
import shutil
import socket
import sys
import tempfile
import time

from tqdm import tqdm

from .errors import CacheError, PredictorError, cannot_load
from .files import DAY, file_hash, stat_of, work_folder, write_text
from .int8 import calibrate, quantize_onnx, quiet_loggers, widen_scales
from .runtimes import is_importable

# Of the code that makes these files. Raise it when another file is to be made of the same model.
VERSION = 3
# Bytes of a file whose hash is kept. Smaller ones are hashed at each start, which takes 20 ms at most.
LARGE = 2**25

ENDING = ".ernie-cache"  # of all names in a cache: what else lies in the folder is never removed
DAYS = 30  # after which an entry is removed that nobody has used
LIMIT = 20 * 10**9  # bytes of all entries together, above which the oldest are removed


class Derived:
    """A file made of an ONNX file: made by the first who needs it, found by all later ones.

    Args:
        onnx_file: its source.
        kind: the beginning of its folder's name.
        cache_dir: the cache; None: the user's.
        key: what else it is made of.
        ending: of its name.
    """

    def __init__(self, onnx_file, kind, cache_dir=None, key="", ending=".onnx"):
        if cache_dir is None:
            user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
            cache_dir = os.path.join(user_cache, "ernie_predictor")
        self.onnx_file, self.cache, self.ending = str(onnx_file), str(cache_dir), ending
        self.content = known_hash(self.onnx_file, self.cache)
        self.folder = _entry(self.cache, kind, f"{VERSION} {self.content} {key}")

    def find(self):
        """The path of the file, or None where there is none. A damaged one is removed."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.folder):
                path = os.path.join(self.folder, name)
                if known_hash(path, self.cache) + self.ending == name:
                    _touch(self.folder)
                    return path
                os.remove(path)
        return None

    def make(self, write):
        """Makes the file.

        Args:
            write: a function of a path, where it writes the file.

        Returns:
            The path of the file, which is written atomically.

        Raises:
            CacheError: the cache can't be written to, or there is no space.
            PredictorError: the source is damaged, or was replaced.
        """
        try:
            with work_folder(self.cache, os.path.basename(self.folder)) as work:
                made = os.path.join(work, f"made{self.ending}")
                write(made)
                if known_hash(self.onnx_file, self.cache) != self.content:
                    raise PredictorError(f"{self.onnx_file} was replaced while it was read: start again")
                path = self.find()  # of another process, which has made it meanwhile
                if path is None:
                    path = os.path.join(self.folder, file_hash(made) + self.ending)
                    os.makedirs(self.folder, exist_ok=True)
                    os.replace(made, path)
        except OSError as e:
            megabytes = max(1, round(os.path.getsize(self.onnx_file) / 1e6))
            raise CacheError(
                f"there is no place for a file made of {self.onnx_file}, which needs up to {megabytes} MB "
                f"({e.filename or self.cache}: {e.strerror or e}); name a folder with --cache_dir"
            ) from e
        except (PredictorError, ImportError):
            raise
        except Exception as e:
            raise PredictorError(cannot_load(self.onnx_file, e)) from e
        remove_old(self.cache)
        return path


def derive(onnx_file, kind, cache_dir, write, key=""):
    """The path of a model made of another, once; see `Derived`."""
    derived = Derived(onnx_file, kind, cache_dir, key)
    return derived.find() or derived.make(write)


def derived_folder(onnx_file, kind, cache_dir):
    """The path of a folder for what a runtime itself keeps of a model. Made where there is none.

    Raises:
        CacheError: the cache can't be written to.
    """
    derived = Derived(onnx_file, kind, cache_dir)
    try:
        os.makedirs(derived.folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=derived.folder):  # a folder can be there and yet be read-only
            pass
    except OSError as e:
        reason = f"{derived.folder}: {e.strerror}"
        raise CacheError(
            f"there is no place for files made of {onnx_file} ({reason}); name one with --cache_dir"
        ) from e
    _touch(derived.folder)
    remove_old(derived.cache)
    return derived.folder


# ----------------------------------------------------------------------------------------------------------- the cache


def known_hash(path, cache):
    """The hash of a file's content. That of a large file is kept in the cache, for as long as `stat_of` the file is the
    same: reading 300 MB takes 0.2 s.

    Machine and path count as well: in images of disks, files of several models can have one inode and one time.
    """
    before = stat_of(path)
    if before["size"] < LARGE:
        return file_hash(path)
    record = _entry(cache, "hash", f"{socket.gethostname()} {os.path.realpath(path)} {before}")
    with contextlib.suppress(OSError, ValueError), open(record, encoding="utf-8") as f:
        value = f.read()
        if len(value) == 16 and value.isalnum():  # the machine may have lost its power before all was on the disk
            _touch(record)
            return value
    value = file_hash(path)
    if before == stat_of(path):
        with contextlib.suppress(OSError):
            os.makedirs(cache, exist_ok=True)
            write_text(record, value)
    return value


def remove_old(cache):
    """Removes the entries of a cache that nobody has used for `DAYS`, and the oldest above `LIMIT`; who has one open
    keeps it.
    """
    entries = []
    for path in glob.glob(os.path.join(glob.escape(cache), f"*{ENDING}")):
        with contextlib.suppress(OSError):  # another process removes it
            files = [os.path.join(path, name) for name in os.listdir(path)] if os.path.isdir(path) else [path]
            entries.append((os.path.getmtime(path), sum(map(os.path.getsize, files)), path))
    total = 0
    for used, size, path in sorted(entries, reverse=True):
        total += size
        if total > LIMIT or time.time() - used > DAYS * DAY:
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.remove(path)


def _entry(cache, kind, made_of):
    return os.path.join(cache, f"{kind}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}{ENDING}")


def _touch(path):
    """Says that an entry was used now."""
    with contextlib.suppress(OSError):
        os.utime(path)


# ---------------------------------------------------------------------------------------------------------------- INT8


def quantize(onnx_file, cache_dir=None, batches=None):
    """Quantizes an FP32 model; see `derive`.

    Args:
        batches: {"input_ids", "token_type_ids"}: int64 [batch, length], to measure the activations' scales on. None:
            they are measured anew in every batch that runs, which is slower, and attention stays in float32.
    """
    batches = list(batches or ())
    digest = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch):
            digest.update(f"{batch[name].shape}".encode() + batch[name].tobytes())

    def write(target):
        for package in ("onnx", "onnxruntime"):
            if not is_importable(package):
                raise PredictorError(
                    f"{onnx_file} is an FP32 model, and to quantize it the package {package} is needed: pip install "
                    f"{package}, or name a folder that compress_*.py wrote"
                )
        if batches:
            with quiet_loggers():
                products = calibrate(onnx_file, tqdm(batches, "Calibrating", disable=not sys.stderr.isatty()))
            quantize_onnx(onnx_file, target, products)
        else:
            quantize_dynamically(onnx_file, target)

    if batches:
        return derive(onnx_file, "int8-static", cache_dir, write, key=digest.hexdigest())
    return derive(onnx_file, "int8-dynamic", cache_dir, write)


def quantize_dynamically(source, target):
    """Writes an ONNX model whose weights are INT8 with one scale per column, and whose activations are quantized while
    it runs.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    # ONNX Runtime advises to preprocess the model: nothing that a user could act on.
    with quiet_loggers(), tempfile.TemporaryDirectory() as folder:
        # Given a file's name, it would write another beside it, which a read-only folder forbids.
        made = os.path.join(folder, "model.onnx")
        quantize_dynamic(model, made, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
        model = onnx.load(made)
    widen_scales(model, weights)
    onnx.save(model, target)
