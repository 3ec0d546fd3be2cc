"""The Open Inference Protocol, version 2, over HTTP: what KServe and `tritonclient.http` speak.

Tensors are texts in, labels and numbers out. Both forms are taken: JSON, and JSON followed by the tensors in binary
(the extension of Triton's clients). https://github.com/kserve/open-inference-protocol
"""

import json
import math
import re
import struct

from ernie_predictor.formats import encoding_hint

from .errors import bad_request, wrong_field
from .service import PARAMETERS

HEADER = "inference-header-content-length"
_SURROGATE = re.compile("[\ud800-\udfff]")
DTYPES = {str: "BYTES", int: "INT64", float: "FP32"}
FORMATS = {int: "<q", float: "<f"}  # in binary


def metadata(name, task):
    """A model's description."""
    return {
        "name": name,
        "versions": ["1"],
        "platform": "ernie",
        "inputs": [{"name": key, "datatype": "BYTES", "shape": [-1]} for key in task.text_names()],
        "outputs": [{"name": key, "datatype": DTYPES[kind], "shape": [-1]} for key, kind in task.tensors.items()],
    }


def read_request(body, header_length, load):
    """(the JSON part, the bytes after it).

    Args:
        header_length: of the header `HEADER`, or None.
        load: a function of bytes that returns JSON.
    """
    if header_length is None:
        return load(body), b""
    # int() refuses thousands of digits with an error of its own.
    if not re.fullmatch("[0-9]{1,18}", header_length) or int(header_length) > len(body):
        raise bad_request(f"{HEADER} is {header_length!r:.40}, the body has {len(body):,} bytes")
    return load(body[: int(header_length)]), body[int(header_length) :]


def read_items(request, binary, task):
    """The items of an inference request, as the predictor takes them.

    Args:
        task: a class of the predictor's `TASKS`.

    Raises:
        ApiError: 400 or 422, with what does not fit.
    """
    inputs = request.get("inputs") if isinstance(request, dict) else None
    if not isinstance(inputs, list) or not all(isinstance(tensor, dict) for tensor in inputs):
        raise wrong_field("expected an object with a list of objects, `inputs`")
    if not isinstance(request.get("id", ""), str) or _SURROGATE.search(request.get("id", "")):
        raise wrong_field("`id` must be a text")
    fields, known = {}, task.text_names()
    for tensor in inputs:
        name = tensor.get("name")
        if name not in known:
            raise wrong_field(f"unknown input {name!r:.60}; expected {' and '.join(known)}")
        if name in fields:
            raise wrong_field(f"input {name} is there twice")
        if tensor.get("datatype") != "BYTES":
            raise wrong_field(f"input {name}: the datatype is {tensor.get('datatype')!r:.40}, expected BYTES")
        values, binary = _values(tensor, binary)
        shape = tensor.get("shape")
        # As deep as `data` may be: a product of thousands of large numbers takes minutes.
        whole = isinstance(shape, list) and len(shape) <= 4 and all(type(n) is int and n >= 0 for n in shape)
        if not whole or math.prod(shape) != len(values):
            raise wrong_field(f"input {name}: the shape is {shape!r:.40}, but it has {len(values):,} texts")
        fields[name] = values
    for name in required(task):
        if name not in fields:
            raise wrong_field(f"there is no input {name}")
    if len({len(values) for values in fields.values()}) > 1:
        raise wrong_field("the inputs have different numbers of texts")
    columns = [fields[name] for name in known if name in fields]
    return columns[0] if len(columns) == 1 else list(zip(*columns))


def required(task):
    """The names of the texts that an item of a task, a class, must have."""
    return task.text_names() if task.second_required else task.text_names()[:1]


def read_parameters(request):
    """The request's `parameters` as far as they are this server's own: `max_seq_len` and the like."""
    parameters = request.get("parameters")
    return {k: v for k, v in parameters.items() if k in PARAMETERS} if isinstance(parameters, dict) else {}


def _values(tensor, binary):
    """(the texts of a tensor, what is left of the binary part)."""
    size = _parameter(tensor, "binary_data_size")
    if size is None:
        values = _flat(tensor.get("data"))
        if not all(isinstance(value, str) for value in values):
            raise wrong_field(f"input {tensor['name']}: `data` must hold texts")
        return values, binary
    if type(size) is not int or not 0 <= size <= len(binary):
        raise bad_request(f"input {tensor['name']}: binary_data_size is {size!r:.40}, there are {len(binary):,} bytes")
    part, values, place = binary[:size], [], 0
    while place < size:
        if place + 4 > size or place + 4 + (length := struct.unpack_from("<I", part, place)[0]) > size:
            raise bad_request(f"input {tensor['name']}: a text is longer than its tensor")
        text = part[place + 4 : place + 4 + length]
        try:
            values.append(text.decode("utf-8"))
        except UnicodeDecodeError as e:
            reason = f"{e.reason}{encoding_hint(text, 'send')}"
            raise bad_request(f"input {tensor['name']}: text {len(values)} is not UTF-8: {reason}") from None
        place += 4 + length
    return values, binary[size:]


def _parameter(owner, key):
    parameters = owner.get("parameters")
    return parameters.get(key) if isinstance(parameters, dict) else None


def _flat(data, depth=0):
    if not isinstance(data, list) or depth > 3:
        raise wrong_field("`data` must be a list of texts")
    flat = []
    for value in data:
        flat += _flat(value, depth + 1) if isinstance(value, list) else [value]
    return flat


def read_outputs(request, task):
    """The outputs that a request asks for, each once: {name: whether in binary}.

    Raises:
        ApiError: 422.
    """
    wanted = request.get("outputs", [])
    if not isinstance(wanted, list) or len(wanted) > len(task.tensors):
        raise wrong_field(f"`outputs` must be a list of at most {len(task.tensors)}")
    wanted = wanted or [{"name": key} for key in task.tensors]
    in_binary = _parameter(request, "binary_data_output") is True
    outputs = {}
    for output in wanted:
        key = output.get("name") if isinstance(output, dict) else None
        if not isinstance(key, str) or key not in task.tensors:
            raise wrong_field(f"unknown output {key!r:.60}; expected {' or '.join(task.tensors)}")
        own = _parameter(output, "binary_data")
        outputs[key] = in_binary if own is None else own is True
    return outputs


def write_response(service, request, outputs, answers):
    """(body, headers) of a response, each output in the form that the request asks for (`read_outputs`)."""
    rows = [service.task.to_tensors(answer) for answer in answers]
    tensors, binary = [], b""
    for key, in_binary in outputs.items():
        values, kind = [row[key] for row in rows], service.task.tensors[key]
        tensor = {"name": key, "datatype": DTYPES[kind], "shape": [len(rows)]}
        if in_binary:
            part = _encode(values, kind)
            tensor["parameters"] = {"binary_data_size": len(part)}
            binary += part
        else:
            tensor["data"] = values
        tensors.append(tensor)
    response = {"model_name": service.name, "model_version": "1", "outputs": tensors}
    if "id" in request:
        response["id"] = request["id"]
    head = json.dumps(response, ensure_ascii=False, allow_nan=False).encode()
    if not binary:
        return head, {"content-type": "application/json"}
    return head + binary, {"content-type": "application/octet-stream", HEADER: str(len(head))}


def _encode(values, kind):
    if kind is str:
        texts = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return b"".join(struct.pack(FORMATS[kind], value) for value in values)
