"""The OpenAPI document: what each route takes and gives, told by the model's task, in JSON Schema.

What a schema cannot say is a 422 all the same: two lists must be of one length, and a tensor's shape must fit its data.
The limits, which an operator sets, are at /info.
"""

from fastapi.openapi.utils import get_openapi

from .middleware import OPEN_ROUTES
from .protocol_v2 import HEADER, required
from .service import PARAMETERS

ERRORS = {
    400: "The body is no JSON in UTF-8, or there are no texts.",
    401: "API_KEY is set, and was not sent as Authorization: Bearer ...",
    404: "There is no such model.",
    408: "The body did not arrive in time.",
    413: "More texts, characters or bytes than a limit.",
    415: "The body is compressed.",
    422: "A field is missing, unknown, or holds something else.",
    429: "The queue is full: come back after Retry-After seconds.",
    500: "The model could not run a text.",
    503: "The model is being opened, is broken, or the server stops.",
    504: "The request waited for longer than it may.",
}
ASKED = (400, 401, 408, 413, 415, 422, 429, 500, 503, 504)  # of routes that ask the model
ERROR = {
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {"error": {"type": "string"}, "error_type": {"type": "string"}},
    "additionalProperties": False,
}
STRING, NUMBER, INTEGER, NULL = ({"type": name} for name in ("string", "number", "integer", "null"))
TYPES = {str: STRING, float: NUMBER, int: INTEGER}


def request_body(route):
    """Of the published route: {"data": {...}, "parameters": {...}}."""
    names, needed = route.task.text_names(), required(route.task)
    fields = {name: _one_or_many(_text(name)) for name in names}
    for name in names[len(needed) :]:
        fields[name]["anyOf"].append(NULL)
    if route.tokens:
        text = _text(names[0])
        tokens = {**_list(STRING), "contains": {**STRING, "pattern": r"\S"}, "description": "of tokens"}
        fields[names[0]] = _one_or_many(text, {"anyOf": [text, tokens]})
    fields |= {name: {"description": "sent by published clients, and ignored"} for name in route.ignored}
    numbers = {
        name: {"anyOf": [{**INTEGER, "minimum": least} | ({} if most is None else {"maximum": most}), NULL]}
        for name, (least, most) in PARAMETERS.items()
    }
    ignored = {name: {"description": "ignored"} for name in ("is_split_into_words", "return_attention_mask")}
    data = _object(fields, needed)
    parameters = {"anyOf": [_object({**numbers, **ignored}), NULL]}
    return _json(_object({"data": data, "parameters": parameters}, ["data"]), required=True)


def result(route):
    """Of the published route: {"result": {...}}, and where there is something to tell, {"warnings": [...]}."""
    columns = {name: _list(_schema(kind)) for name, kind in route.result.items()}
    return _object({"result": _object(columns, columns), "warnings": _list(STRING)}, ["result"])


def infer_body(task):
    """Of /v2/models/M/infer in JSON; the binary form has no schema."""
    tensors = []
    for name in task.text_names():
        data = {**_list(_text(name)), "minItems": 1}
        shape = {**_list({**INTEGER, "minimum": 1}), "maxItems": 4, "description": "that of `data`"}
        tensor = {"name": {"const": name}, "datatype": {"const": "BYTES"}, "shape": shape, "data": data}
        tensors.append(_open(tensor, tensor))
    needed = [{"contains": tensor} for _, tensor in zip(required(task), tensors)]
    inputs = {**_list({"anyOf": tensors}), "minItems": len(needed), "maxItems": len(tensors), "allOf": needed}
    output = _open({"name": {"enum": list(task.tensors)}}, ["name"])
    outputs = {**_list(output), "maxItems": len(task.tensors)}
    body = _json(_open({"id": STRING, "inputs": inputs, "outputs": outputs}, ["inputs"]), required=True)
    body["description"] = f"JSON, or JSON and tensors in binary with the header {HEADER}"
    return body


def infer_result():
    tensor = {"name": STRING, "datatype": STRING, "shape": _list(INTEGER), "data": _list({})}
    outputs = _list(_open(tensor, ["name", "datatype", "shape"]))
    fields = {"model_name": STRING, "model_version": STRING, "id": STRING, "outputs": outputs}
    return _object(fields, ["model_name", "outputs"])


def responses(schema, *statuses):
    """`responses` of an operation: 200 with a schema, and errors by their statuses."""
    errors = {
        str(status): {"description": ERRORS[status], **_json({"$ref": "#/components/schemas/Error"})}
        for status in statuses
    }
    for status in ("429", "503"):
        if status in errors:
            errors[status]["headers"] = {"Retry-After": {"schema": INTEGER}}
    return {"200": {"description": "The answer.", **_json(schema)}, **errors}


def describe(app, models, settings):
    """The document of an application, made once.

    Args:
        models: the `ModelFolder`s.
        settings: `Settings`.
    """
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = get_openapi(title=app.title, version="1", routes=app.routes)
    document["components"] = {"schemas": {"Error": ERROR}}
    paths = document["paths"]
    for model in models:
        paths[model.path]["post"] |= {
            "requestBody": request_body(model.route),
            "responses": responses(result(model.route), *ASKED),
        }
    names, tasks = [model.name for model in models], {model.route.task.name: model.route.task for model in models}
    bodies = [infer_body(task) for _, task in sorted(tasks.items())]
    schemas = [body["content"]["application/json"]["schema"] for body in bodies]
    bodies[0]["content"]["application/json"]["schema"] = {"anyOf": schemas} if len(schemas) > 1 else schemas[0]
    infer = responses(infer_result(), 404, *ASKED)
    infer["200"]["content"]["application/octet-stream"] = {}
    plain = {
        "/v2/models/{name}/infer": ("post", {"requestBody": bodies[0], "responses": infer}),
        "/v2/models/{name}": ("get", {"responses": responses(_open(), 401, 404, 503)}),
        "/v2/models/{name}/ready": ("get", {"responses": responses(_open(), 401, 404, 503)}),
        "/v2/health/live": ("get", {"responses": responses(_object({"live": {"type": "boolean"}}))}),
        "/v2/health/ready": ("get", {"responses": responses(_object({"ready": {"type": "boolean"}}), 503)}),
        "/v2": ("get", {"responses": responses(_open(), 401)}),
        "/health": ("get", {"responses": responses(_object({"status": STRING}), 503)}),
        "/ready": ("get", {"responses": responses(_object({"status": STRING}), 503)}),
        "/info": ("get", {"responses": responses(_open(), 401, 503)}),
        "/metrics": ("get", {"responses": {"200": {"description": "For Prometheus.", "content": {"text/plain": {}}}}}),
    }
    for path, (method, more) in plain.items():
        operation = paths[path][method]
        operation |= more
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = {"enum": names}
    if settings.api_key is not None:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in paths.items():
            for operation in operations.values() if path not in OPEN_ROUTES else ():
                operation["security"] = [{"key": []}]
    app.openapi_schema = document
    return document


def _object(properties, required=()):
    return {**_open(properties, required), "additionalProperties": False}


def _schema(kind):
    """The schema of a kind of `ernie_predictor.tasks.base.Fields`."""
    if isinstance(kind, dict):
        fields = {name: _schema(of_field) for name, of_field in kind.items()}
        return _object(fields, fields)
    if isinstance(kind, tuple):
        return {**_list(_schema(kind[0])), "maxItems": len(kind)}
    return _list(_schema(kind[0])) if isinstance(kind, list) else TYPES[kind]


def _open(properties=None, required=()):
    """An object that may have other fields, too."""
    return {"type": "object", "properties": properties or {}, "required": list(required)}


def _text(name):
    pattern = r"^$|\S" if name == "question" else r"\S"  # not white space alone; CMRC2018 has an empty question
    return {**STRING, "pattern": pattern}


def _list(items):
    return {"type": "array", "items": items}


def _one_or_many(one, item=None):
    return {"anyOf": [one, {**_list(item or one), "minItems": 1}]}


def _json(schema, **more):
    return {"content": {"application/json": {"schema": schema}}, **more}
