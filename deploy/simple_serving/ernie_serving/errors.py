"""Errors as clients see them: a status, {"error": ..., "error_type": ...}, and no more."""


class ApiError(Exception):
    """An answer that is an error.

    Attributes:
        status: of HTTP.
        kind: `error_type`, a word for programs.
        retry_after: seconds, where it makes sense to try again.
    """

    def __init__(self, status, kind, message, retry_after=None):
        super().__init__(message)
        self.status, self.kind, self.retry_after = status, kind, retry_after

    def body(self):
        return {"error": str(self), "error_type": self.kind}


def bad_request(message):
    return ApiError(400, "bad_request", message)


def wrong_field(message):
    return ApiError(422, "validation", message)


def too_large(what, limit, found):
    return ApiError(413, "too_large", f"{what}: {found:,}, the limit is {limit:,}")


def unavailable(message, retry_after):
    return ApiError(503, "unavailable", message, retry_after)


def timed_out(seconds):
    return ApiError(504, "timeout", f"the request waited for more than {seconds:g} s")
