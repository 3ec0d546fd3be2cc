"""The package's exceptions: what a user can fix, with a message that names it."""


class PredictorError(ValueError):
    """Something that the user can fix; the message names it."""


class UsageError(PredictorError):
    """An argument that is wrong, by itself or for this model."""


class TokenizerError(PredictorError):
    """The vocabulary or its folder cannot be used; the message names the file."""


class CacheError(PredictorError):
    """There is no writable place for a file that is made once and kept."""
