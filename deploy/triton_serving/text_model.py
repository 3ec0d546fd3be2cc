"""A model of any task: texts in, answers out. It runs the texts of all requests that Triton has merged, in batches of
similar length.

Triton merges only requests of the same shape. A text is a tensor of shape [1], however long it is, so requests with
texts of different lengths are merged, which those with token ids would not be. prepare_models.py makes this file each
model's model.py, and copies the predictor's package beside it.
"""

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass

import numpy as np
import triton_python_backend_utils as pb_utils
from ernie_predictor import PredictorError, load_task, open_folder
from ernie_predictor.batching import token_batches
from ernie_predictor.formats import encoding_hint
from ernie_predictor.machine import usable_cores

WARM_UP_LENGTHS = (16, 32, 64)
BUCKET = 32  # tokens: on a GPU, lengths are padded to multiples of it, so that Triton can merge batches


@dataclass
class Job:
    """The texts of one request.

    Attributes:
        error: a `TritonError`, if it cannot be answered.
        features, notes: of the task's `tokenize`.
        truncated: for each text, whether it was truncated.
        outputs: the model's, for each feature.
    """

    error: object = None
    pairs: list = ()
    features: list = ()
    notes: list = ()
    truncated: list = ()
    outputs: list = ()


class TritonPythonModel:
    """What Triton calls: `initialize`, `execute`, `finalize`."""

    def initialize(self, args):
        self.watcher = start_watcher(os.getppid())
        try:
            self.load(args)
        except BaseException:
            self.finalize()  # Triton reports the error; it must not end as if this process had been killed
            raise

    def finalize(self):
        """Triton unloads the model: this process is about to end, as it should."""
        os.kill(self.watcher, signal.SIGKILL)
        os.waitpid(self.watcher, 0)

    def load(self, args):
        config = json.loads(args["model_config"])
        settings = {name: value["string_value"] for name, value in config["parameters"].items()}
        folder = os.path.join(args["model_repository"], args["model_version"])
        self.max_batch_tokens = int(settings["max_batch_tokens"])
        self.max_characters = int(settings["max_characters"])
        self.max_batch_size = config["max_batch_size"]
        self.types = {
            output["name"]: pb_utils.triton_string_to_numpy(output["data_type"]) for output in config["output"]
        }
        instances = sum(group["count"] for group in config["instance_group"])
        # Two instances take turns more than they run at once (prepare_models.py says why there are two).
        threads = int(settings["num_threads"]) or max(1, usable_cores() // max(1, instances // 2))
        if network := settings.get("network"):
            self.task = load_task(folder, num_threads=threads)
            self.model, self.bucket = Network(network, settings["network_outputs"].split(",")), BUCKET
        else:
            self.bucket = 1
            self.task, self.model = open_folder(
                folder,
                backend=settings["backend"],
                precision_mode=settings["precision_mode"],
                num_threads=threads,
                batch_size=self.max_batch_size,
                cache_dir=os.path.join(folder, "cache"),  # where prepare_models.py has made them
            )
            self.warm_up()
            pb_utils.Logger.log_info(f"{args['model_name']}: {self.model}")
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.warned = False

    def warm_up(self):
        """Runs a few lengths once, so that the first requests do not wait for kernels to be made."""
        longest = self.task.max_seq_length
        for length in sorted({min(length, longest) for length in (*WARM_UP_LENGTHS, longest)}):
            ids = [self.task.tokenizer.cls_id] * length
            self.compute([(ids, [0] * length)])

    def execute(self, requests):
        """Returns one response per request, in their order. Only the request that causes an error gets an error."""
        jobs = [self.open(request) for request in requests]
        self.run([job for job in jobs if job.error is None])
        return [self.respond(job) for job in jobs]

    def open(self, request):
        """The `Job` of a request, tokenized."""
        try:
            columns = [texts_of(request, name) for name in self.inputs]
            if columns[0] is None:
                # If a model has an optional input, Triton checks only how many inputs there are.
                raise PredictorError(f"there is no input {self.inputs[0]}")
            columns = [column for column in columns if column is not None]
            items = columns[0] if len(columns) == 1 else list(zip(*columns))
            pairs = []
            for index, item in enumerate(items):
                try:
                    pairs.append(self.task.check(item))
                except PredictorError as e:
                    raise PredictorError(f"item {index}: {e}") from None
                longest = max(len(text) for text in pairs[-1] if text is not None)
                if longest > self.max_characters:
                    raise PredictorError(
                        f"item {index} has {longest:,} characters; the limit is {self.max_characters:,}"
                    )
        except PredictorError as e:
            return Job(error=pb_utils.TritonError(str(e), pb_utils.TritonError.INVALID_ARG))
        try:
            features, notes, number = self.tokenize(pairs)
            # The task only counts truncated texts. If there are any, each text is tokenized again to find out which.
            truncated = [number > 0 and self.tokenize([pair])[2] > 0 for pair in pairs]
        except Exception as e:
            return Job(error=failure(f"tokenizing a request of {len(pairs)} texts failed: {e!r}"))
        if number and not self.warned:
            self.warned = True
            what, limit = self.task.limit()
            pb_utils.Logger.log_warn(f"texts are truncated: a {what} is longer than {limit} tokens")
        return Job(None, pairs, features, notes, truncated, [None] * len(features))

    def tokenize(self, pairs):
        """(features, notes, number of texts that were truncated)."""
        before = self.task.truncated
        features, notes = self.task.tokenize(pairs)
        return features, notes, self.task.truncated - before

    def run(self, jobs):
        """Runs the features of all jobs together and fills in the outputs; texts of a failed batch run one by one."""
        places = [(job, index) for job in jobs for index in range(len(job.features))]
        lengths = [len(job.features[index][0]) for job, index in places]
        for rows in token_batches(lengths, self.max_batch_tokens, self.max_batch_size):
            batch = [places[row] for row in rows]
            try:
                self.run_batch(batch)
            except Exception as e:
                pb_utils.Logger.log_error(f"a batch of {len(batch)} texts failed; running its texts one by one: {e!r}")
                for place in batch:
                    try:
                        self.run_batch([place])
                    except Exception as e:
                        place[0].error = failure(repr(e))

    def run_batch(self, batch):
        outputs = self.compute([job.features[index] for job, index in batch])
        for (job, index), *row in zip(batch, *outputs):
            job.outputs[index] = tuple(row)

    def compute(self, features):
        """The model's outputs for features that run as one batch."""
        longest = max(len(input_ids) for input_ids, _ in features)
        length = min(-(-longest // self.bucket) * self.bucket, self.task.max_seq_length)
        outputs = self.model(self.task.tokenizer.pad(features, length))
        if not all(np.isfinite(array).all() for array in outputs):
            raise ValueError("the model's outputs are not a number (NaN) or infinite")
        return outputs

    def respond(self, job):
        if job.error is None:
            try:
                rows = [self.task.to_tensors(a) for a in self.task.read(job.pairs, job.notes, job.outputs)]
                rows = [{**row, "truncated": truncated} for row, truncated in zip(rows, job.truncated)]
                return pb_utils.InferenceResponse(
                    [tensor(name, [row[name] for row in rows], dtype) for name, dtype in self.types.items()]
                )
            except Exception as e:
                job.error = failure(f"reading the answers to a request of {len(job.pairs)} texts failed: {e!r}")
        return pb_utils.InferenceResponse(error=job.error)


def start_watcher(server):
    """Forks a process that ends this one when the server is gone, and the server when this one was killed.

    A Triton that was killed leaves this process running. And if this process is killed, such as by the kernel when
    memory is short, Triton (2.51) starts no other: its share of the requests fails, while the server stays "ready".
    Whatever started the server can replace both. A thread cannot watch: if the server is killed while it receives a
    response, the interpreter stays locked.

    Args:
        server: Triton's process id.

    Returns:
        The process id of the watcher. Stop it before this process ends by itself.
    """
    model = os.getpid()
    watcher = os.fork()
    if watcher == 0:
        try:
            watch(server, model)
        finally:
            os._exit(0)
    return watcher


def watch(server, model):
    """Returns when `server` or its child `model`, which is this process's parent, is gone and the other was ended.

    It looks only at whether they exist, so both may be paused for any time.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # may be sent to all processes of a terminal or a service
        signal.signal(number, signal.SIG_IGN)
    while os.getppid() == model:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ends just now
            if parent_of(model) != server:
                os.kill(model, signal.SIGKILL)
                return
        time.sleep(1)
    with contextlib.suppress(ProcessLookupError):  # both were killed
        os.kill(server, signal.SIGTERM)
        message = f"the Python process {model} of a model was killed; ending Triton, which does not replace it"
        os.write(2, f"text_model.py: error: {message}\n".encode())


def parent_of(process):
    """The process id of a process's parent."""
    with open(f"/proc/{process}/stat") as f:
        return int(f.read().rpartition(")")[2].split()[1])  # "id (name) state parent ..."


def failure(reason):
    """An error that the request did not cause. Its reason is only logged, since it may name files of the server."""
    pb_utils.Logger.log_error(reason)
    return pb_utils.TritonError("the model could not run this text; the server's log says why")


def texts_of(request, name):
    """The texts of a request's input; None if an optional input is missing.

    Raises:
        PredictorError: they are not UTF-8.
    """
    found = pb_utils.get_input_tensor_by_name(request, name)
    if found is None:
        return None
    texts = []
    for index, value in enumerate(found.as_numpy().reshape(-1)):
        try:
            texts.append(value.decode("utf-8"))
        except UnicodeDecodeError as e:
            reason = f"{e.reason} at byte {e.start}{encoding_hint(value, 'send')}"
            raise PredictorError(f"item {index}: {name} is not UTF-8: {reason}") from None
    return texts


def tensor(name, values, dtype):
    """An output of shape [batch]: the published clients read a value by one index."""
    if dtype == np.object_:
        values = [value.encode("utf-8") for value in values]
    return pb_utils.Tensor(name, np.array(values, dtype=dtype))


class Network:
    """The network as another model of this server, such as one of Triton's ONNX Runtime backend on a GPU.

    Args:
        name: of that model.
        outputs: names of its outputs, in the predictor's order.
    """

    def __init__(self, name, outputs):
        self.name, self.outputs = name, outputs

    def __call__(self, batch):
        response = pb_utils.InferenceRequest(
            model_name=self.name,
            requested_output_names=self.outputs,
            inputs=[pb_utils.Tensor(name, array) for name, array in batch.items()],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if response.has_error():
            raise RuntimeError(response.error().message())
        return [pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in self.outputs]
