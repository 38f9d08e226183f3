"""The page of `Model.report` in a real browser, without a screen: nothing in its console, nothing asked of a network, a
picture that is not blank, and what its program does when somebody points and chooses."""

import functools
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import threading

import numpy as np
import pytest
from commands import TEXT

from cylstm import Model, Vocabulary, losses

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs a browser: Debian's chromium, or Chrome")
image = pytest.importorskip("matplotlib.image")

WIDE, NARROW = (1280, 2000), (500, 2000)  # a headless window has no less than 500
DARK = "--blink-settings=preferredColorScheme=0"
# What a person does: to be put at the end of a page. What came of it is written into the page.
PERSON = """
<script>
const get = (id) => document.getElementById(id), told = {};
const colours = (canvas) => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
  copy.drawImage(canvas, 0, 0);
  return new Set(new Uint32Array(copy.getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size;
};
told.scripts = performance.getEntriesByType("resource").map((entry) => entry.name);
told.wide = document.documentElement.scrollWidth - window.innerWidth;
const canvas = get("heat"), box = canvas.getBoundingClientRect();
told.size = [canvas.width, canvas.height];
told.heat = colours(canvas);
canvas.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + 2.5 * box.width / canvas.width,
  clientY: box.top + 1.5 * box.height / canvas.height}));
told.pointed = get("heat-told").textContent;
get("heat-layer").value = "1"; get("heat-layer").dispatchEvent(new Event("change"));
get("heat-part").value = "h"; get("heat-part").dispatchEvent(new Event("change"));
told.other = colours(canvas);
if (get("text")) {
  const spans = [...get("text").children], backs = () => spans.map((span) => span.style.background).join("|");
  told.text = get("text").textContent;
  told.surprise = backs();
  spans[3].dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  told.bits = get("text-told").textContent;
  get("text-mark").value = "1"; get("text-mark").dispatchEvent(new Event("change"));
  told.cell = backs();
  spans[3].dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  told.value = get("text-told").textContent;
}
const result = document.createElement("pre");
result.id = "told"; result.textContent = JSON.stringify(told); document.body.append(result);
</script>
"""


def browse(folder, page, *options):
    """Open a file; what the browser prints, what its console has, and the addresses that were asked for."""
    log = folder / "net.json"
    mine = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # sanitizers of ours stay out
    run = subprocess.run([
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-extensions", "--force-device-scale-factor=1", "--enable-logging=stderr",
        "--virtual-time-budget=3000", f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}",
        "--net-log-capture-mode=Everything", *options, page.as_uri(),
    ], capture_output=True, timeout=120, check=True, env=mine)  # fmt: skip
    console = [line for line in run.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
    asked = set(re.findall(r'"url":"(https?:[^"]*)"', log.read_text(errors="replace")))
    return run.stdout.decode(), console, {address for address in asked if not of_its_own(address)}


def of_its_own(address):
    """What a browser asks of its maker, whatever page is open."""
    return re.match(r"https?://([\w-]+\.)*(google|googleapis|gstatic|gvt1)\.com[/:]", address) is not None


def told_by(dom):
    """What PERSON wrote."""
    return json.loads(html.unescape(re.search(r'<pre id="told">(.*?)</pre>', dom, re.S)[1]))


def with_person(page):
    other = page.with_name("person_" + page.name)
    text = page.read_text("utf-8")
    other.write_text(text.replace("</body>", PERSON + "</body>"), "utf-8")
    return other


@pytest.fixture(scope="module")
def of_text(tmp_path_factory):
    vocabulary = Vocabulary.from_text(TEXT)
    model = Model(len(vocabulary), 12, len(vocabulary), num_layers=2, vocabulary=vocabulary, seed=1)
    ids = vocabulary.encode(TEXT)
    model.fit(ids[:-1], ids[1:], epochs=2, progress=False)
    page = tmp_path_factory.mktemp("page") / "text.html"
    model.report(page, TEXT)
    return page


@pytest.fixture(scope="module")
def of_numbers(tmp_path_factory):
    rng = np.random.default_rng(3)
    x = np.sin(np.arange(61)[:, None] / 4 + rng.uniform(0, 6, (5, 1, 2))) + 0.1 * rng.standard_normal((5, 61, 2))
    model = Model(2, 9, 6, num_layers=2, bidirectional=True, loss=losses.Quantiles(), seed=1)
    model.fit(x[:, :-1], x[:, 1:], epochs=2, progress=False, metrics=["coverage"])
    page = tmp_path_factory.mktemp("page") / "numbers.html"
    model.report(page, x[:, :-1], x[:, 1:])
    return page


def test_a_text_is_coloured_as_somebody_chooses(of_text, tmp_path):
    dom, console, asked = browse(tmp_path, with_person(of_text), "--dump-dom", "--window-size={},{}".format(*WIDE))
    assert console == [] and asked == set()
    told = told_by(dom)
    assert told["scripts"] == [] and told["wide"] <= 0
    assert told["text"] == TEXT[:1000] and told["size"] == [1000, 12]
    assert told["heat"] > 50 and told["other"] > 50
    assert re.fullmatch(r"unit \d+, step 2, token .: -?[\d.e-]+", told["pointed"])
    assert re.fullmatch(r"step 3, .: [\d.]+ bits", told["bits"]) and re.fullmatch(
        r"step 3, .: -?[\d.e-]+", told["value"]
    )
    assert "rgba" in told["surprise"] and "rgba" in told["cell"] and told["surprise"] != told["cell"]


def test_numbers_have_no_text_and_fit_a_narrow_window(of_numbers, tmp_path):
    dom, console, asked = browse(tmp_path, with_person(of_numbers), "--dump-dom", "--window-size={},{}".format(*NARROW))
    assert console == [] and asked == set()
    told = told_by(dom)
    assert told["wide"] <= 0 and "text" not in told and told["heat"] > 50
    assert re.fullmatch(r"unit \d+, step 2: -?[\d.e-]+", told["pointed"])


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("kind", ["of_text", "of_numbers"])
def test_it_is_a_picture_in_light_and_dark(request, tmp_path, kind, size):
    page, means = request.getfixturevalue(kind), []
    for options in ((), (DARK,)):
        shot = tmp_path / "shot.png"
        _, console, asked = browse(
            tmp_path, page, f"--screenshot={shot}", "--window-size={},{}".format(*size), *options
        )
        assert console == [] and asked == set()
        pixels = (image.imread(shot)[..., :3] * 255).round().astype(np.uint32)
        assert pixels.shape == (size[1], size[0], 3)
        colours = np.unique(pixels @ np.array([1 << 16, 1 << 8, 1], np.uint32))
        assert len(colours) > 300
        for part in np.split(pixels[: size[1] // 2], 4):  # something in each of the parts that everybody sees
            assert len(np.unique(part.sum(axis=2))) > 20
        means.append(pixels.mean())
    assert means[0] > 200 and means[1] < 70


def test_it_would_be_seen_if_a_page_did_ask_or_fail(tmp_path):
    """The same look at a page that does what ours does not."""
    (tmp_path / "files").mkdir()
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=tmp_path / "files"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/picture.png"
        page = tmp_path / "bad.html"
        page.write_text(f"<body><img src='{address}'><script>console.error('one'); nobody.knows();</script></body>")
        _, console, asked = browse(tmp_path, page, "--dump-dom")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert address in asked
    assert any("one" in line for line in console) and any("ReferenceError" in line for line in console)
