"""Settings of a server: environment variables (MODEL_PATH, PORT, ...), and flags of the same names over them."""

import argparse

from ernie_predictor import UsageError
from ernie_predictor.machine import usable_cores
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Each field is an environment variable in capitals, and a flag of `python server_....py`."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", protected_namespaces=())

    model_path: str | None = Field(
        None,
        description="folder that run_*.py --do_export or compress_*.py wrote; for several models NAME=DIR NAME=DIR "
        "(in the environment with commas), each served at /models/NAME",
    )
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(8189, ge=1, le=65535, description="port to listen on")
    workers: int = Field(1, ge=1, description="server processes; the cores are divided among them")
    backend: str = Field("auto", description="onnxruntime, openvino, paddle, or auto: the fastest that is installed")
    precision_mode: str | None = Field(None, description="fp32, bf16, int8; left out, int8 where the folder is INT8")
    num_threads: int | None = Field(None, ge=1, description="per process; left out, the usable cores / workers")
    max_seq_length: int | None = Field(None, ge=1, description="maximum tokens per text; left out, as trained")
    cache_dir: str | None = Field(None, description="folder for files that are made from the model once")

    max_batch_tokens: int = Field(4096, ge=8, description="maximum tokens per batch, padding included")
    max_batch_size: int = Field(64, ge=1, description="maximum texts per batch")
    max_wait_ms: float = Field(0.0, ge=0, description="how long a text waits for others when the model is free")
    sort_by_length: bool = Field(True, description="whether waiting texts are batched by length")

    max_queue_tokens: int = Field(262_144, ge=1, description="maximum tokens in a model's queue; beyond, 429")
    max_texts: int = Field(1024, ge=1, description="maximum texts per request; beyond, 413")
    max_characters: int = Field(100_000, ge=1, description="maximum characters per text; beyond, 413")
    max_body_bytes: int = Field(8 * 2**20, ge=1, description="maximum bytes per request; beyond, 413")
    timeout_s: float = Field(30.0, gt=0, description="how long a request may wait; beyond, 504")
    open_first: bool = Field(False, description="accept no connection before the models are open, instead of 503")
    drain_s: float = Field(1.0, ge=0, description="after SIGTERM, how long requests are still accepted")
    shutdown_s: float = Field(25.0, gt=0, description="after that, how long accepted requests may take")

    api_key: str | None = Field(None, description="clients must send Authorization: Bearer <this>")
    log_json: bool = Field(False, description="log lines as JSON")

    @property
    def threads(self):
        """Threads of this process: the cores that it may use, divided among the workers."""
        return self.num_threads or max(1, usable_cores() // self.workers)


def read_flags(about, argv=None):
    """`Settings`: flags over environment variables over defaults."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f" (default: {field.default})"
        parser.add_argument(
            f"--{name}",
            nargs="+" if name == "model_path" else None,
            help=f"{field.description}{default}; {name.upper()} in the environment",
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
    try:
        return Settings(**given)
    except ValidationError as e:
        found = e.errors()[0]
        name = found["loc"][0]
        flag = f"--{name}" if name in given else name.upper()
        raise UsageError(f"{flag} {found['input']}: {found['msg']}") from None
