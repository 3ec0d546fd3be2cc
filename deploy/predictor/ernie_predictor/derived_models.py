"""Files made from a folder's model.onnx, once: quantized models, and compiled ones, which open faster.

They are named after the content of their source, so that another model never gets their answers.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from typing import NamedTuple

from tqdm import tqdm

from .errors import CacheError, PredictorError, cannot_load
from .files import DAY, file_hash, stat_of, work_folder, write_text
from .int8 import calibrate, quantize_onnx, quiet_loggers, widen_scales
from .runtimes import is_importable

# Of the code that makes these files. Raise it when another file is to be made of the same model.
VERSION = 2
# Bytes of a file whose hash is kept. Smaller ones are hashed at each start, which takes 20 ms at most.
LARGE = 2**25

# Days after which a cache loses what another machine made of a model that is not there any more, or is another there.
DAYS = 30
# Files that one model has of one kind, of different calibrations or processors; the oldest goes for the next.
KEPT = 4

_HASH = "[0-9a-f]{12}"
_ID = f"{_HASH}(?:-{_HASH})?"


class Place(NamedTuple):
    """Where files made of a model are kept."""

    folder: str
    stem: str  # how their names begin
    anyones: str  # a pattern of that: of all who share the place


class Derived:
    """A file, or a folder, made of an ONNX file: made by the first who needs it, found by all later ones.

    Args:
        onnx_file: its source.
        kind: a part of its name; the rest is a hash of its source's content and of `VERSION`.
        cache_dir: where it is kept; None: beside its source, or in the user's cache where that is read-only.
        key: what else it is made of, 12 hex digits, a part of its name.
        ending: of its name; nothing for a folder.
        checked: whether its content is compared with what was written, when it is found. For files that a runtime
            takes as they are.
    """

    def __init__(self, onnx_file, kind, cache_dir=None, key="", ending=".onnx", checked=False):
        self.onnx_file, self.checked = str(onnx_file), checked
        source = os.path.realpath(onnx_file)
        stem = os.path.splitext(os.path.basename(onnx_file))[0]
        # A cache holds what was made of many folders, and by several machines: in containers, different models often
        # have the same path.
        path, machine = (hashlib.sha256(text.encode()).hexdigest()[:12] for text in (source, socket.gethostname()))
        elsewhere, anyones = f"{path}-{machine}.{stem}", rf"{path}-{_HASH}\.{re.escape(stem)}"
        if cache_dir is not None:
            self.places = [Place(str(cache_dir), elsewhere, anyones)]
        else:
            user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
            self.places = [
                Place(os.path.dirname(os.path.abspath(onnx_file)), stem, re.escape(stem)),
                Place(os.path.join(user_cache, "ernie_predictor"), elsewhere, anyones),
            ]
        content = _hash_of(source, [os.path.join(place.folder, f"{place.stem}.hash.json") for place in self.places])
        version = hashlib.sha256(f"{VERSION} {content}".encode()).hexdigest()[:12]
        self.kind = f".{kind}-"
        self.current = self.kind + version  # how names go on, of what is made of the source's present content
        self.rest = self.current + (f"-{key}" if key else "") + ending

    def find(self):
        """The path of the file, or None where there is none yet."""
        for folder, stem, anyones in self.places:
            with contextlib.suppress(OSError):
                names = re.compile(anyones + re.escape(self.rest))
                found = [entry for entry in os.listdir(folder) if names.fullmatch(entry)]
                for name in sorted(found, key=lambda name: name != stem + self.rest):  # one's own first
                    path = os.path.join(folder, name)
                    if os.path.isfile(path) and (not self.checked or _is_as_written(path)):
                        return path
        return None

    def make(self, write):
        """Makes the file. What was made of the same source before it changed is removed.

        Args:
            write: a function of a path, where it writes the file.

        Returns:
            The path of the file, which is written atomically.

        Raises:
            CacheError: no place can be written to, or there is no space.
            PredictorError: the source is damaged.
        """
        for place in self.places:
            folder, name = place.folder, place.stem + self.rest
            path = os.path.join(folder, name)
            try:
                with work_folder(folder, name) as work:
                    made = os.path.join(work, name)
                    write(made)
                    known = file_hash(made) if self.checked else None
                    os.replace(made, path)
                    if self.checked:
                        _write_record(path, f"{path}.json", known)
            except OSError as e:
                reason = f"{e.filename or folder}: {e.strerror or e}"
                continue
            except (PredictorError, ImportError):
                raise
            except Exception as e:
                raise PredictorError(cannot_load(self.onnx_file, e)) from e
            self._remove_outdated(place)
            return path
        megabytes = max(1, round(os.path.getsize(self.onnx_file) / 1e6))
        raise CacheError(
            f"there is no place for a file made of {self.onnx_file}, which needs up to {megabytes} MB ({reason}); name "
            "a folder with --cache_dir"
        )

    def folder(self):
        """The path of a folder that is kept, for what a runtime itself keeps of a model. Made where there is none.

        Raises:
            CacheError: no place can be written to.
        """
        for place in self.places:
            path = os.path.join(place.folder, place.stem + self.rest)
            try:
                os.makedirs(path, exist_ok=True)
                with work_folder(path, "test"):  # a folder can be there and yet be read-only
                    pass
            except OSError as e:
                reason = f"{path}: {e.strerror}"
                continue
            self._remove_outdated(place)
            return path
        raise CacheError(f"there is no place for files made of {self.onnx_file} ({reason}); name one with --cache_dir")

    def _remove_outdated(self, place):
        """Removes what was made of the source before it changed, and what is more than `KEPT`. Whoever has it open
        keeps it.

        Only what has a name just as it is given here: of the file itself, and of what was made of that in turn.
        """
        ours = rf"(?P<file>{place.anyones}{re.escape(self.kind)}{_ID})"
        made = re.compile(rf"{ours}(\.hash\.json|(\.[a-z0-9-]+-{_ID})?(\.onnx|\.blob|\.blob\.json|\.hash\.json)?)")
        with contextlib.suppress(OSError):
            found = {entry: match["file"] for entry in os.listdir(place.folder) if (match := made.fullmatch(entry))}
            ages = {entry: time.time() - os.path.getmtime(os.path.join(place.folder, entry)) for entry in found}
            current = re.compile(place.anyones + re.escape(self.current) + f"(-{_HASH})?")
            newest = {}  # {file: the age of its newest entry}
            for entry, file in found.items():
                if current.fullmatch(file):
                    newest[file] = min(ages[entry], newest.get(file, ages[entry]))
            kept = sorted(newest, key=newest.__getitem__)[:KEPT]
            for entry, file in found.items():
                if current.fullmatch(file):
                    stays = file in kept
                else:
                    stays = not file.startswith(f"{place.stem}.") and ages[entry] < DAYS * DAY
                if stays:
                    continue
                path = os.path.join(place.folder, entry)
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):
                        os.remove(path)


def derive(onnx_file, kind, cache_dir, write, key=""):
    """The path of a model made of another, once; see `Derived`."""
    derived = Derived(onnx_file, kind, cache_dir, key)
    return derived.find() or derived.make(write)


def derived_folder(onnx_file, kind, cache_dir):
    """The path of a folder for what a runtime itself keeps of a model; see `Derived.folder`."""
    return Derived(onnx_file, kind, cache_dir, ending="").folder()


# ------------------------------------------------------------------------------------------------ hashes that are kept


def _hash_of(path, records):
    """The hash of a file's content; a large file's is kept in the first of some record files that can be written.

    A record holds while `stat_of` the file is the same.
    """
    if os.path.getsize(path) < LARGE:
        return file_hash(path)
    for record in records:
        known = _read_record(record)
        if known.get("file") == stat_of(path):
            return known["sha256"]
    before, value = stat_of(path), file_hash(path)
    if before == stat_of(path):
        for record in records:
            with contextlib.suppress(OSError):
                os.makedirs(os.path.dirname(record), exist_ok=True)
                _write_record(path, record, value)
                break
    return value


def _is_as_written(path):
    """Whether a file has the content that its record tells. One that was copied is read for that, once."""
    record = f"{path}.json"
    known = _read_record(record)
    if not known:
        return False
    if known.get("file") == stat_of(path):
        return True
    if known.get("sha256") != file_hash(path):
        return False
    with contextlib.suppress(OSError):
        _write_record(path, record, known["sha256"])
    return True


def _read_record(record):
    try:
        with open(record, encoding="utf-8") as f:
            known = json.load(f)
        return known if isinstance(known, dict) and isinstance(known.get("sha256"), str) else {}
    except (OSError, ValueError):
        return {}


def _write_record(path, record, value):
    write_text(record, json.dumps({"sha256": value, "file": stat_of(path)}) + "\n")


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
        if not is_importable("onnx"):
            raise PredictorError(
                f"{onnx_file} is an FP32 model, and to quantize it the package onnx is needed: pip install onnx, or "
                "name a folder that compress_*.py wrote"
            )
        if not is_importable("onnxruntime"):
            raise PredictorError(
                f"{onnx_file} is an FP32 model, and to quantize it the package onnxruntime is needed: pip install "
                "onnxruntime, or name a folder that compress_*.py wrote"
            )
        if batches:
            with quiet_loggers():
                products = calibrate(onnx_file, tqdm(batches, "Calibrating", disable=not sys.stderr.isatty()))
            quantize_onnx(onnx_file, target, products)
        else:
            quantize_dynamically(onnx_file, target)

    if batches:
        return derive(onnx_file, "int8-static", cache_dir, write, key=digest.hexdigest()[:12])
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
