"""Batches of texts of similar length, cut by a budget of tokens: for servers, which run what many requests hold."""

import collections
from collections.abc import Hashable, Iterator, Sequence

# A text joins a batch of longer ones if that costs less than a run of its own: on a CPU a run costs about as much as
# this many tokens, whatever it computes.
WORTH_PADDING = 32


def token_batches(
    lengths: Sequence[int],
    max_tokens: int,
    max_texts: int,
    sort: bool = True,
    limits: Sequence[tuple[Hashable, int | None]] | None = None,
) -> Iterator[list[int]]:
    """Yields the indices of the texts of each batch, the longest first, which need the most memory.

    Args:
        lengths: tokens of each text.
        max_tokens: maximum tokens per batch, padding included; a longer text runs alone.
        max_texts: maximum texts per batch.
        sort: by length, so that a long text never pads many short ones; False: the texts keep their order.
        limits: for each text the request that it belongs to, and the maximum of that request's texts per batch, or
            None.

    >>> list(token_batches([300, 8, 290, 9], max_tokens=4096, max_texts=64))
    [[0, 2], [3, 1]]
    """
    waiting = list(range(len(lengths)))
    if sort:
        waiting.sort(key=lambda index: -lengths[index])
    while waiting:
        batch: list[int] = []
        later: list[int] = []
        of_request: collections.Counter[Hashable] = collections.Counter()
        longest = 0
        for place, index in enumerate(waiting):
            length = max(longest, lengths[index])
            full = (len(batch) + 1) * length > max_tokens or len(batch) == max_texts
            if batch and (full or (sort and length - lengths[index] > max(WORTH_PADDING, length // 8))):
                later += waiting[place:]
                break
            if limits is not None:
                request, limit = limits[index]
                if limit is not None and of_request[request] >= limit:
                    later.append(index)
                    continue
                of_request[request] += 1
            batch.append(index)
            longest = length
        waiting = later
        yield batch
