"""For schemathesis over a server's /openapi.json: fits together what a JSON schema cannot say must fit.

SCHEMATHESIS_HOOKS=schemathesis_hooks st run http://127.0.0.1:8189/openapi.json          in this folder

Two lists of texts must be of one length, a tensor's shape must be that of its data, and no input may come twice.
"""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    body = case.body
    if case.meta is None or not case.meta.generation.mode.is_positive or not isinstance(body, dict):
        return
    if "inputs" in body:
        tensors = list({tensor["name"]: tensor for tensor in body["inputs"]}.values())
        shortest = min(len(tensor["data"]) for tensor in tensors)
        tensors = [{**tensor, "shape": [shortest], "data": tensor["data"][:shortest]} for tensor in tensors]
        case.body = {**body, "inputs": tensors}
    elif case.path != "/models/ernie_ner" and None not in body["data"].values():
        case.body = {**body, "data": equally_long(body["data"])}


def equally_long(fields):
    lists = {name: [texts] if isinstance(texts, str) else texts for name, texts in fields.items()}
    shortest = min(map(len, lists.values()))
    return {name: texts[:shortest] for name, texts in lists.items()}
