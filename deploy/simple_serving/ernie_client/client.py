"""One model of a server, asked over HTTP, with retries and messages that say what to do."""

import itertools
import re
import sys
import threading
import time

import requests
from ernie_predictor import PredictorError
from ernie_predictor.errors import one_line
from tqdm import tqdm

LONGEST_WAIT = 120  # seconds; the client gives up on a server that asks for more
_LOST = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)
# What to do about a status, beside the server's own message.
_HINTS = {
    401: "--api_key KEY, or API_KEY in the environment",
    413: "--batch_size sends fewer texts per request; the other limits are the server's flags",
    504: "--concurrency and --batch_size send less at once",
}


class Client:
    """Asks one model of a server; may be shared by threads.

    Args:
        url: of the server, such as http://127.0.0.1:8189.
        model: its name in the route, /models/<model>.
        server: the script that serves such models, for messages.
        timeout: seconds to wait for an answer.
        retries: how often a request is sent again to a full or starting server (429, 503), or after a lost connection.
            Retry-After is honoured.
        api_key: sent as a Bearer token; None: not sent.
        connections: how many are kept open.

    Attributes:
        truncated: number of texts that the server has truncated so far.
    """

    def __init__(self, url, model, server, timeout=60.0, retries=10, api_key=None, connections=8):
        self.url, self.model, self.server = url.rstrip("/"), model, server
        self.timeout, self.retries, self.truncated = timeout, retries, 0
        self._reached, self._said, self._lock = False, set(), threading.Lock()
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=connections))
        if api_key:
            # As `auth`: a header would be replaced by what ~/.netrc has for the host.
            self._session.auth = _Bearer(api_key.strip())

    def ask(self, data, parameters=None):
        """The `result` for a request's `data`.

        Raises:
            PredictorError: there is none; says why, and what to do.
        """
        body = {"data": data, "parameters": parameters} if parameters else {"data": data}
        response = self._send("POST", f"/models/{self.model}", body)
        if response.status_code == 404:
            self.info()
        if response.status_code != 200:
            raise self._error(response)
        try:
            answer = response.json()
            result, warnings = answer["result"], list(map(str, answer.get("warnings") or ()))
            truncated = int(response.headers.get("x-truncated-texts", 0))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self.unlike() from None
        for warning in warnings:
            self.say(warning)
        with self._lock:
            self.truncated += truncated
        return result

    def info(self):
        """What `/info` says of the model, a dict.

        Raises:
            PredictorError: as `ask`; or the server has no such model.
        """
        response = self._send("GET", "/info")
        if response.status_code != 200:
            raise self._error(response)
        try:
            info = response.json()
            models = {model["route"].rpartition("/")[2]: model for model in info["models"]}
            names = [f"{name} ({model['task']})" for name, model in models.items()]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self.unlike() from None
        if self.model not in models:
            raise PredictorError(f"no model {self.model} at {self.url}; --model can be {', '.join(names)}")
        return models[self.model]

    def info_when_open(self):
        """`info` of a model that is open; of one that is still being opened after as many retries, what is known."""
        for _ in range(self.retries):
            info = self.info()
            if info.get("state") != "opening":
                return info
            self.say("the model is being opened; trying again")
            time.sleep(2)
        return self.info()

    def unlike(self):
        """The error for an answer that is in no known form."""
        return PredictorError(f"{self.url} answers in another form than {self.server} does")

    def say(self, message):
        """Prints a warning on standard error, once; warnings that differ only in numbers are the same."""
        kind = re.sub(r"[\d.,]+", "0", message)
        with self._lock:
            new = kind not in self._said
            self._said.add(kind)
        if new:
            tqdm.write(f"warning: {message}", file=sys.stderr)

    def _send(self, method, path, body=None):
        """A response of any status but 429 and 503, after which it is tried again."""
        for attempt in itertools.count():
            wait = min(0.25 * 2**attempt, 10)
            try:
                response = self._session.request(
                    method, self.url + path, json=body, timeout=self.timeout, allow_redirects=False
                )
                self._reached = True
            except requests.ReadTimeout:
                raise PredictorError(f"{self.url}: no answer within --timeout {self.timeout:g} s") from None
            except _LOST as e:
                if not self._reached:
                    raise PredictorError(
                        f"no server listens at {self.url} ({_reason(e)}); start one with: python {self.server} "
                        "--model_path DIR --port PORT"
                    ) from None
                failure = f"{self.url}: the connection was lost ({_reason(e)})"
            except requests.RequestException as e:
                raise PredictorError(f"{self.url}: {one_line(e)}") from None
            else:
                if response.status_code not in (429, 503):
                    return response
                failure = self._error(response)
                asked = response.headers.get("retry-after", "")
                wait = int(asked) if asked.isdecimal() else wait
            if attempt >= self.retries or wait > LONGEST_WAIT:
                tries = f"tried {attempt + 1} times" if wait <= LONGEST_WAIT else f"it asks to wait for {wait} s"
                raise PredictorError(f"{failure} ({tries})")
            self.say(f"{failure}; trying again")
            time.sleep(wait)

    def _error(self, response):
        """The error for a response that is one."""
        try:
            message = str(response.json()["error"])
        except (ValueError, TypeError, KeyError):  # of a proxy
            message = one_line(response.text or response.reason)
        hint = _HINTS.get(response.status_code)
        return PredictorError(f"{self.url} answered {response.status_code}: {message}" + (f" ({hint})" if hint else ""))


class _Bearer(requests.auth.AuthBase):
    def __init__(self, key):
        self.key = key

    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {self.key}".encode()
        return request


def _reason(error):
    """What the operating system said first of a connection, as "Connection refused"."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or one_line(error)
