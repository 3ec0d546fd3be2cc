"""Settings of a server: environment variables (MODEL_PATH, PORT, ...), and flags of the same names over them."""

import argparse
import os
from typing import Annotated, Literal

from ernie_predictor import UsageError
from ernie_predictor.commandline import HelpFormatter
from ernie_predictor.machine import usable_cores
from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


def _check_key(key):
    """A key without the white space around it, such as the line break at the end of a file."""
    key = key.strip()
    if not key:
        raise ValueError("it is empty; to serve without a key, do not set it")
    if not (key.isascii() and key.isprintable()):
        raise ValueError("expected printable ASCII characters, since it is sent in an HTTP header")
    return key


class Settings(BaseSettings):
    """Each field is an environment variable in capitals, and a flag of `python server_....py`."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", protected_namespaces=())

    model_path: str | None = Field(
        None,
        description="folder that run_*.py --do_export or compress_*.py wrote; several as NAME=DIR NAME=DIR (in the "
        "environment with commas), each at /models/NAME",
    )
    backend: str = Field("auto", description="onnxruntime, openvino or paddle; auto: the fastest one installed")
    precision_mode: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto", description="fp32, bf16, int8; auto: what the folder holds"
    )
    num_threads: int | None = Field(None, ge=1, description="per process (default: usable cores / workers)")
    max_seq_length: int | None = Field(None, ge=1, description="tokens per text (default: as trained)")
    cache_dir: str | None = Field(None, description="for files made from the model once")

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0: all")
    port: int = Field(8189, ge=1, le=65535, description="port to listen on")
    workers: int = Field(1, ge=1, description="processes; they share the cores")
    api_key: Annotated[str, AfterValidator(_check_key)] | None = Field(
        None, description="clients must send Authorization: Bearer KEY"
    )
    log_json: bool = Field(False, description="log lines as JSON")
    open_first: bool = Field(False, description="listen only when the models are open")
    drain_s: float = Field(1.0, ge=0, description="after SIGTERM, requests are accepted for N s")
    shutdown_s: float = Field(25.0, gt=0, description="after that, they may take N s")

    max_batch_tokens: int = Field(4096, ge=8, description="padding included")
    max_batch_size: int = Field(64, ge=1, description="texts per batch")
    max_wait_ms: float = Field(0.0, ge=0, description="wait for more texts while the model is free")
    sort_by_length: bool = Field(True, description="batch texts of similar length")

    max_queue_tokens: int = Field(262_144, ge=1, description="per model; beyond: 429")
    max_texts: int = Field(1024, ge=1, description="per request; beyond: 413")
    max_characters: int = Field(100_000, ge=1, description="per text; beyond: 413")
    max_body_bytes: int = Field(8 * 2**20, ge=1, description="per request; beyond: 413")
    timeout_s: float = Field(30.0, gt=0, description="to send a request, beyond: 408; for its answer, beyond: 504")
    max_connections: int = Field(1000, ge=1, description="per process; beyond: the oldest idle one is closed, or 503")
    max_headers: int = Field(100, ge=1, description="per request; beyond: 431")
    max_header_bytes: int = Field(65_536, ge=1024, description="per request; beyond: 431")

    @property
    def threads(self):
        """Threads of this process: the cores that it may use, divided among the workers."""
        return self.num_threads or max(1, usable_cores() // self.workers)


# The first field of each group of --help.
GROUPS = {"model_path": "Model", "host": "Server", "max_batch_tokens": "Batches", "max_queue_tokens": "Limits"}
# What --help calls a field's value; a number is N.
METAVARS = {"model_path": "DIR", "cache_dir": "DIR", "host": "ADDRESS", "api_key": "KEY"}
METAVARS |= dict.fromkeys(("backend", "precision_mode"), "NAME")
METAVARS |= dict.fromkeys(("log_json", "open_first", "sort_by_length"), "true|false")


def read_flags(about, argv=None):
    """`Settings`: flags over environment variables over defaults."""
    usage = "python %(prog)s --model_path DIR [--port N] [...]"
    epilog = "Each is an environment variable, too, in capitals: PORT=8189. Flags win."
    parser = argparse.ArgumentParser(description=about, usage=usage, epilog=epilog, formatter_class=HelpFormatter)
    for name, field in Settings.model_fields.items():
        if name in GROUPS:
            group = parser.add_argument_group(GROUPS[name])
        default = "" if field.default is None else f" (default: {field.default})"
        group.add_argument(
            f"--{name}",
            nargs="+" if name == "model_path" else None,
            metavar=METAVARS.get(name, "N"),
            help=f"{field.description}{default}",
        )
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    if "model_path" in given:
        given["model_path"] = ",".join(given["model_path"])
    try:
        settings = load_settings(**given)
    except UsageError as e:
        parser.error(str(e))
    if settings.workers > usable_cores():
        parser.error(f"--workers {settings.workers}: there are {usable_cores()} cores; each worker needs one")
    return settings


def load_settings(**given):
    """`Settings` of the environment, and `given` over them.

    Raises:
        UsageError: a value does not fit.
    """
    flags = set(given)
    # Another variable may be empty; a key that somebody meant to set must not be missing.
    for name, value in os.environ.items():
        if name.upper() == "API_KEY":
            given.setdefault("api_key", value)
    try:
        return Settings(**given)
    except ValidationError as e:
        found = e.errors()[0]
        name = found["loc"][0]
        flag = f"--{name}" if name in flags else name.upper()
        shown = "" if name == "api_key" else f" {found['input']}"
        raise UsageError(f"{flag}{shown}: {found['msg'].removeprefix('Value error, ')}") from None
