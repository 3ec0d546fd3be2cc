"""Settings of a server: environment variables (MODEL_PATH, PORT, ...), and flags of the same names over them."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Each field is an environment variable in capitals, and a flag of `python server_....py`."""

    model_config = SettingsConfigDict(cli_parse_args=False, extra="ignore", protected_namespaces=())

    model_path: str | None = Field(None, description="folder that run_*.py --do_export or compress_*.py wrote")
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(8189, ge=1, le=65535, description="port to listen on")
    backend: str = Field("auto", description="onnxruntime, openvino, paddle, or auto: the fastest that is installed")
    precision_mode: str | None = Field(None, description="fp32, bf16, int8; left out, int8 where the folder is INT8")
    num_threads: int | None = Field(None, ge=1, description="of the model; left out, the cores that are there")
    max_seq_length: int | None = Field(None, ge=1, description="tokens of a text; left out, as the model was trained")
    cache_dir: str | None = Field(None, description="where files are kept that are made of the model once")

    max_batch_tokens: int = Field(4096, ge=8, description="tokens of a batch, padding counted")
    max_batch_size: int = Field(64, ge=1, description="texts of a batch")
    max_wait_ms: float = Field(0.0, ge=0, description="for how long a text waits for others when the model is free")
    sort_by_length: bool = Field(True, description="whether texts that wait are batched by length")

    max_queue_tokens: int = Field(262_144, ge=1, description="tokens that may wait; beyond, 429")
    max_texts: int = Field(1024, ge=1, description="texts of a request; beyond, 413")
    max_characters: int = Field(100_000, ge=1, description="characters of a text; beyond, 413")
    max_body_bytes: int = Field(8 * 2**20, ge=1, description="bytes of a request; beyond, 413")
    timeout_s: float = Field(30.0, gt=0, description="for how long a request may wait; beyond, 504")
    drain_s: float = Field(1.0, ge=0, description="from SIGTERM on, /ready is 503 for so long before the server stops")
    shutdown_s: float = Field(25.0, gt=0, description="for how long a stopping server answers what it has taken")

    api_key: str | None = Field(None, description="clients must send Authorization: Bearer <this>")
    log_json: bool = Field(False, description="log lines as JSON")
