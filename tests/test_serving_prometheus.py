"""A real Prometheus (Debian's package) scrapes a server, and the queries of the README give numbers."""

import math
import re
import shutil
import subprocess
import threading
import time

import pytest
import requests
import yaml
from test_serving import SERVING, Running, free_port

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")


def test_prometheus_reads_every_query_of_the_readme(exported, tmp_path):
    server = Running("tnews", exported("tnews")[0]).wait()
    config = yaml.safe_load((SERVING / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"]["scrape_interval"] = "1s"
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{server.port}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    prometheus = subprocess.Popen(
        [
            *("prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}"),
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    asking = threading.Event()

    def ask():
        while not asking.is_set():
            server.ask({"data": {"text": ["足球", "今年的苹果又大又甜"]}})
            server.ask({"data": {"text": []}})  # fails, and is counted
            time.sleep(0.02)

    client = threading.Thread(target=ask)
    client.start()
    try:
        readme = (SERVING / "README.md").read_text(encoding="utf-8")
        (block,) = re.findall(r"```promql\n(.*?)```", readme, re.DOTALL)
        missing = set(block.strip().splitlines())
        assert len(missing) >= 5
        deadline = time.monotonic() + 120
        while missing and time.monotonic() < deadline:
            missing = {query for query in missing if not all(map(math.isfinite, values(address, query)))}
            time.sleep(0.2)
        assert not missing, f"no number: {missing}"
        assert {"200", "400"} <= {
            row["metric"]["status"] for row in rows(address, "sum by (status) (ernie_requests_total)")
        }
    finally:
        asking.set()
        client.join()
        prometheus.terminate()
        prometheus.wait(timeout=60)
        assert server.stop() == 0


def rows(address, query):
    try:
        answer = requests.get(f"http://{address}/api/v1/query", params={"query": query}, timeout=60)
    except requests.ConnectionError:
        return []  # it is starting
    return answer.json()["data"]["result"] if answer.status_code == 200 else []


def values(address, query):
    """A query's numbers; not a number where there are none yet."""
    return [float(row["value"][1]) for row in rows(address, query)] or [math.nan]
