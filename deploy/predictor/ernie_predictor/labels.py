"""config.json to the names of a model's classes, in every form in which people write them."""

from .errors import PredictorError

EXPECTED = 'expected the names of all classes, as {"0": "name", "1": "name", ...}'


def read_labels(config, path):
    """The names of a model's classes, in their order; none where config.json names none.

    `id2label` may be a list, may count from 1, may hold numbers, or may be the other way round, as `label2id`, which is
    read in its place where it is missing.

    Args:
        config: what config.json holds, a dict.
        path: of config.json, for messages.

    Raises:
        PredictorError: it is not clear which class has which name.
    """
    id2label, label2id = config.get("id2label"), config.get("label2id")
    labels = _names(id2label, f"{path}, `id2label`")
    others = []
    if _is_by_name(label2id):
        others = _in_order([(_number(index), label) for label, index in label2id.items()], f"{path}, `label2id`")
    elif not labels:
        others = _names(label2id, f"{path}, `label2id`")
    place = {label: index for index, label in enumerate(labels)}
    for index, label in enumerate(others):
        if place.get(label, index) != index:
            raise PredictorError(
                f"{path}: {label!r} is class {place[label]} in `id2label`, and class {index} in `label2id`; make them "
                "the same, or remove `label2id`"
            )
    return labels or others


def _names(found, where):
    """The names of classes that a list or a dict gives, in their order."""
    if not found:
        return []
    if isinstance(found, list):
        pairs = list(enumerate(found))
    elif isinstance(found, dict) and all(_number(key) is not None for key in found):
        pairs = [(_number(key), label) for key, label in found.items()]
    elif _is_by_name(found):
        pairs = [(_number(index), label) for label, index in found.items()]
    else:
        raise PredictorError(f"{where} is {found!r:.80}; {EXPECTED}")
    return _in_order(pairs, where)


def _in_order(pairs, where):
    """The names of (number of a class, its name), in order."""
    pairs = sorted(pairs, key=lambda pair: pair[0])
    first = pairs[0][0]
    for place, (index, _) in enumerate(pairs, start=first):
        if first > 1 or index != place:
            missing = 0 if first > 1 else place
            raise PredictorError(f"{where} has no class {missing}, but {len(pairs)} others; {EXPECTED}")
    labels = [_name(label, where) for _, label in pairs]
    seen = set()
    for label in labels:
        if label in seen:
            raise PredictorError(f"{where} calls two classes {label!r}; {EXPECTED}")
        seen.add(label)
    return labels


def _is_by_name(found):
    """Whether a dict has names as keys and the numbers of classes as values."""
    return isinstance(found, dict) and bool(found) and all(_number(index) is not None for index in found.values())


def _number(value):
    """The number that a class is given, as a number or as a text; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value >= 0 else None
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else None


def _name(label, where):
    if isinstance(label, bool):
        return str(label).lower()  # as the data sets' reader takes it
    if isinstance(label, (int, float)):
        return str(label)
    if not isinstance(label, str) or not label.strip():
        raise PredictorError(f"{where} calls a class {label!r:.40}; {EXPECTED}")
    return label
