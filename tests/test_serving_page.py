"""The page at `/` in a real browser, on real servers: type, submit, read what is shown."""

import json
import os
import shutil
from urllib.parse import urlsplit

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from test_serving import Running, answers_of, data_of

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser: install Debian's packages chromium and chromium-driver"
)
# As root in a container; and nothing that a new Chromium asks of the world by itself.
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--window-size=1200,900",
]
SCRIPT = '<script>document.title = "owned"</script><img src=x onerror="document.title = \'owned\'">'


class Browser:
    """Chromium on a server's page. The page speaks the browser's language at first."""

    def __init__(self, profile, language):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--accept-lang={language}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))

    def open(self, server, state="ready"):
        self.driver.get(f"{server.url}/")
        return self.wait_for(f"#state[data-state={state}]")

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def wait_for(self, selector):
        """The text of the first such element, once there is one."""
        return WebDriverWait(self.driver, 60).until(lambda _: self.all(selector))[0].text

    def ask(self, *texts, key=None):
        """Fills the fields, submits, and waits for the result."""
        fields = [field for field in self.all("#ask textarea") if field.is_displayed()]
        for field, text in zip(fields, texts):
            # As if pasted: Chromium's driver types no character beyond U+FFFF.
            self.driver.execute_script("arguments[0].value = arguments[1]", field, text)
        before = self.all("#answer > *")[-1]
        fields[0].send_keys(key) if key else self.driver.find_element(By.ID, "submit").click()
        WebDriverWait(self.driver, 60).until(lambda _: self.all("#answer > *")[-1] != before)
        return self.text("#answer")

    def messages(self):
        """What the console says since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def hosts(self):
        """Where requests went since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        # Chromium's own start page is of chrome://.
        return {urlsplit(url).hostname for url in urls if not url.startswith(("data:", "chrome:"))}


def percent(confidence):
    return f"{100 * confidence:.1f}%"


@pytest.fixture(scope="module")
def browsers(tmp_path_factory):
    started = {}

    def get(language="en"):
        if language not in started:
            started[language] = Browser(tmp_path_factory.mktemp("profile"), language)
        started[language].messages(), started[language].hosts()
        return started[language]

    yield get
    for browser in started.values():
        browser.driver.quit()


@pytest.fixture(scope="module")
def servers(exported):
    running = {}

    def get(dataset):
        if dataset not in running:
            running[dataset] = Running(dataset, exported(dataset)[0]).wait()
        return running[dataset]

    yield get
    for server in running.values():
        server.stop()


@pytest.mark.parametrize("language, ready, submit", [("zh-CN", "就绪", "提交"), ("en-US", "Ready", "Submit")])
@pytest.mark.parametrize("dataset", ["tnews", "afqmc", "msra_ner", "cmrc2018"])
def test_the_answer_is_shown(dataset, language, ready, submit, browsers, servers, exported):
    """In the browser's language, with the server's labels, places and confidences; all from this server alone."""
    browser = browsers(language)
    assert browser.open(servers(dataset)) == ready
    assert browser.text("#submit") == submit
    assert browser.driver.find_element(By.TAG_NAME, "html").get_attribute("lang") in (language, language[:2])
    _, inputs, expected = exported(dataset)
    item = inputs[max(range(len(inputs)), key=lambda i: len(expected[i]))]  # of sentences, the one with most entities
    (answer,) = answers_of(dataset, servers(dataset).ask({"data": data_of(dataset, [item])}).json()["result"])
    fields = [field for field in browser.all("#ask textarea") if field.is_displayed()]  # as many as there are texts
    assert len(fields) == len(data_of(dataset, [item])) and all(f.get_attribute("required") for f in fields)
    shown = browser.ask(*([item] if isinstance(item, str) else item))
    if dataset == "msra_ner":
        assert answer and browser.text("#answer .text").replace("\n", "").startswith(item[: answer[0]["start"]])
        marks = [mark.text for mark in browser.all("#answer .text mark")]
        assert marks == [f"{e['entity']}{e['label']} {100 * e['confidence']:.0f}%" for e in answer]
        assert [row.text for row in browser.all("#answer .number")] == [percent(e["confidence"]) for e in answer]
    elif dataset == "cmrc2018":
        assert browser.text("#answer .best") == browser.text("#answer mark") == answer["answer"]
        assert browser.text("#answer .text") == item[1]
        # The first five are shown, the others are folded up.
        names = [name.get_attribute("textContent") for name in browser.all("#answer .name")]
        assert names == [candidate["answer"] for candidate in answer["n_best"]]
        assert len([name for name in browser.all("#answer .name") if name.is_displayed()]) == min(5, len(names))
    else:
        assert browser.text("#answer .best") == answer["label"]
        assert browser.text("#answer .number") == percent(answer["confidence"])
    assert " ms" in shown
    assert browser.messages() == [] and browser.hosts() == {"127.0.0.1"}


@pytest.mark.parametrize("dataset, texts", [("msra_ner", [SCRIPT]), ("cmrc2018", [SCRIPT, SCRIPT])])
def test_markup_stays_text(dataset, texts, browsers, servers):
    browser = browsers()
    browser.open(servers(dataset))
    browser.ask(*texts)
    shown = browser.driver.execute_script(
        "const copy = document.querySelector('#answer .text').cloneNode(true);"
        "for (const tag of copy.querySelectorAll('small')) tag.remove(); return copy.textContent"
    )
    assert shown == SCRIPT
    assert browser.all("#answer script, #answer img") == [] and "owned" not in browser.driver.title
    assert browser.messages() == []


def test_places_are_those_of_characters(browsers, servers):
    """An emoji is one character for the server and two for JavaScript."""
    browser = browsers()
    server = servers("cmrc2018")
    browser.open(server)
    question, context = "在哪？", "😀👍🏽𠮷 李明在北京工作。"
    browser.ask(question, context)
    result = server.ask({"data": {"question": question, "context": context}}).json()["result"]
    assert browser.text("#answer mark") == context[result["start"][0] : result["end"][0]] == result["answer"][0]
    assert browser.text("#answer .text") == context


def test_by_keyboard_and_language(browsers, servers):
    """Ctrl+Enter submits; every field and button can be reached and has a name; the switch keeps the result."""
    browser = browsers("en-US")
    browser.open(servers("tnews"))
    browser.driver.execute_script("document.activeElement.blur()")
    reached = []
    while (active := browser.driver.switch_to.active_element).tag_name != "body" or not reached:
        reached.append(active.get_attribute("id") or active.text)
        assert active.tag_name == "body" or active.accessible_name, active.get_attribute("outerHTML")
        active.send_keys(Keys.TAB)
    # The page itself, three controls and two examples; no field for a second text: the model is of single texts.
    assert {"language", "cls-text", "submit"} <= set(reached) and len(reached) == 6, reached
    assert "labels" in browser.ask("足球", key=Keys.CONTROL + Keys.ENTER)
    label = browser.text("#answer .best")
    browser.driver.find_element(By.ID, "language").send_keys(Keys.ENTER)
    assert browser.text("#answer .best") == label and "个类别" in browser.text("#answer")
    assert browser.text("#submit") == "提交"


@pytest.mark.parametrize("dataset", ["tnews", "msra_ner", "cmrc2018"])
def test_examples_on_a_phone(dataset, browsers, servers):
    """Two examples answer at one click; nothing is wider than 360 pixels, in light and dark."""
    browser = browsers()
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        paper = set()
        for number, scheme in enumerate(("light", "dark")):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            browser.open(servers(dataset))
            assert len(browser.all("#examples button")) == 2
            browser.all("#examples button")[number].click()
            browser.wait_for("#answer .rows, #answer .text")
            assert browser.driver.execute_script("return document.documentElement.scrollWidth") == 360
            paper.add(browser.driver.find_element(By.TAG_NAME, "body").value_of_css_property("background-color"))
        assert len(paper) == 2
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_errors_are_the_servers_own(browsers, servers):
    """And after one, the next text is answered."""
    browser, server = browsers(), servers("tnews")
    browser.open(server)
    shown = browser.ask("  ")
    error = server.ask({"data": {"text": "  "}}).json()
    assert "HTTP 422" in shown and error["error"] in shown and error["error_type"] in shown
    assert all("422" in message for message in browser.messages())  # Chromium's own line on the status
    assert "labels" in browser.ask("足球")


def test_a_key_is_asked_for(browsers, exported):
    server = Running("tnews", exported("tnews")[0], API_KEY="secret")
    server.wait()
    try:
        browser = browsers()
        assert browser.open(server, "key") == "API key needed"
        field = browser.driver.find_element(By.ID, "key-field")
        assert field.get_attribute("type") == "password"
        field.send_keys("wrong", Keys.ENTER)
        WebDriverWait(browser.driver, 60).until(lambda _: "not accept" in browser.text("#key-note"))
        field.clear()
        field.send_keys("secret", Keys.ENTER)
        browser.wait_for("#state[data-state=ready]")
        assert "labels" in browser.ask("足球") and not field.is_displayed()
        # It is kept nowhere.
        assert browser.driver.execute_script("return localStorage.length + sessionStorage.length") == 0
        assert browser.driver.get_cookies() == []
        browser.open(server, "key")
    finally:
        server.stop()


def test_it_waits_while_a_model_is_opened_and_says_when_the_server_is_gone(browsers, exported, tmp_path):
    """config.json is a pipe here: the server waits for it for as long as this test wants."""
    folder = tmp_path / "model"
    shutil.copytree(exported("tnews")[0], folder)
    config = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    server = Running("tnews", folder)
    try:
        WebDriverWait(server, 60, ignored_exceptions=[requests.ConnectionError]).until(
            lambda _: requests.get(f"{server.url}/health", timeout=60)
        )
        browser = browsers()
        assert "being loaded" in browser.open(server, "opening")
        assert not browser.driver.find_element(By.ID, "submit").is_enabled()
        (tmp_path / "config.json").write_text(config, encoding="utf-8")
        with open(folder / "config.json", "w", encoding="utf-8") as pipe:
            os.replace(tmp_path / "config.json", folder / "config.json")
            pipe.write(config)
        browser.wait_for("#state[data-state=ready]")
        assert "labels" in browser.ask("足球")
    finally:
        server.stop()
    assert "No connection" in browser.ask("足球")


def test_what_only_some_servers_say(browsers, servers):
    """Several models, warnings, and 503 with Retry-After: their answers are given to the page in the browser."""
    browser = browsers()
    browser.open(servers("tnews"))
    answers = {
        "info": [{"models": [
            {"name": name, "task": task, "route": f"/models/{name}", "state": "ready", "labels": ["a", "b"],
             "engine": "openvino", "precision": "int8", "threads": 2, "max_seq_length": 128}
            for name, task in (("one", "seq_cls"), ("two", "token_cls"))], "limits": {}}, 200, {}],
        "models/one": [{"result": {"label": [0], "label_name": ["a"], "confidence": [0.5]},
                        "warnings": [f"text 0: truncated {SCRIPT}"]}, 200, {}],
        "models/two": [{"error": "the server is stopping", "error_type": "unavailable"}, 503, {"retry-after": "5"}],
    }  # fmt: skip
    browser.driver.execute_script(
        "const answers = arguments[0];"
        "window.fetch = async path => new Response(JSON.stringify(answers[path][0]),"
        " {status: answers[path][1], headers: answers[path][2]});"
        "loadModels()",
        answers,
    )
    browser.wait_for("#models:not([hidden])")
    assert f"truncated {SCRIPT}" in browser.ask("足球") and "50.0%" in browser.text("#answer")
    Select(browser.driver.find_element(By.ID, "models")).select_by_visible_text("two")
    assert "appear here" in browser.text("#answer")
    shown = browser.ask("李明在北京")
    assert "HTTP 503 · unavailable" in shown and "the server is stopping" in shown and "again in 5 s" in shown


def test_it_may_load_nothing_else(servers):
    """By its header, whatever gets into it; and it is open where the routes need a key."""
    response = requests.get(f"{servers('tnews').url}/", timeout=60)
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    assert policy["script-src"].startswith("'sha256-") and "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["content-type"].startswith("text/html")
