"""Fields of a request's `data`."""

from ernie_predictor.tasks import join_tokens

from .errors import bad_request, wrong_field


def texts_of(data, key, known=None, like=None, tokens=False):
    """The texts of a field, a list.

    Args:
        data: of the request, a dict.
        known: all fields that `data` may have.
        like: a list of the length that it must have.
        tokens: whether a text may be a list of tokens, which are joined as in training.

    Raises:
        ApiError: the field is missing, empty, or holds something else.
    """
    for name in data if known else ():
        if name not in known:
            raise wrong_field(f"data: unknown field {name!r:.60}; expected {' and '.join(known)}")
    if key not in data:
        raise wrong_field(f"data has no field `{key}`")
    values = data[key]
    if isinstance(values, str):
        values = [values]
    if not isinstance(values, list):
        raise wrong_field(f"data.{key} is {values!r:.60}, expected a text or a list of texts")
    if not values:
        raise bad_request(f"data.{key} is empty: there are no texts")
    if tokens:
        values = [
            join_tokens(v)[0] if isinstance(v, list) and all(isinstance(t, str) for t in v) else v for v in values
        ]
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise wrong_field(f"data.{key}[{index}] is {value!r:.60}, expected a text")
    if like is not None and len(values) != len(like):
        raise wrong_field(f"data.{key} has {len(values):,} texts, the other field {len(like):,}")
    return values
