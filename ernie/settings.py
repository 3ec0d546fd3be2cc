"""settings.json: with what a model was trained or compressed."""

import dataclasses
import enum
import os
import platform
import re
import sys

import paddle
import paddlenlp
from paddlenlp.trainer import CompressionArguments

from ernie.files import write_json


def write_settings(model_args, data_args, args, replace=True):
    """Writes every argument and the versions to settings.json; keys and tokens of accounts are left out.

    It lies in --output_dir, that of a compression in <output_dir>/compression.

    Args:
        replace: whether the model in the folder is of these settings; if not, a settings.json that is there stays.
    """
    compress = isinstance(args, CompressionArguments)
    path = os.path.join(args.output_dir, "compression" if compress else "", "settings.json")
    if not args.should_save or (not replace and os.path.exists(path)):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_json(
        path,
        {
            "script": os.path.basename(sys.argv[0]),
            "versions": {
                "python": platform.python_version(),
                "paddlepaddle": paddle.__version__,
                "paddlenlp": paddlenlp.__version__,
            },
            "model": values_of(model_args),
            "data": values_of(data_args),
            "training": values_of(args),
        },
    )


def values_of(arguments):
    """{argument: value} of a dataclass of arguments, as JSON can hold it; keys and tokens of accounts are left out."""
    names = (field.name for field in dataclasses.fields(arguments))
    secret = re.compile(r"(_key|_token|_secret|password)$")
    return {name: _plain(getattr(arguments, name)) for name in names if not secret.search(name)}


def _plain(value):
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if isinstance(value, (str, int, float, bool, dict, type(None))) else str(value)
