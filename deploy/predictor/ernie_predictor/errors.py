"""The package's exceptions: what a user can fix, with a message that names it."""


class PredictorError(ValueError):
    """Something that the user can fix; the message names it."""


class UsageError(PredictorError):
    """An argument that is wrong, by itself or for this model."""


class TokenizerError(PredictorError):
    """The vocabulary or its folder cannot be used; the message names the file."""


class CacheError(PredictorError):
    """There is no place for a file that is made once and kept: none can be written to, or the disk is full."""


def cannot_load(path, error):
    """The message for a model file that a runtime refuses."""
    return f"{path} cannot be loaded; is the file complete? ({one_line(error)})"


def one_line(error):
    """What an error says, without its line breaks, at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
