"""The page of `explain` in a browser: its sliders change the numbers and the drawings, and it loads nothing."""

import os
import re
import shutil
import subprocess

import pytest

from minidl.__main__ import main

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
if BROWSER is None:
    if os.environ.get("MINIDL_EXTRAS"):
        raise FileNotFoundError("MINIDL_EXTRAS is set, and chromium is absent: apt-get install chromium")
    pytest.skip("needs chromium", allow_module_level=True)

QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
QUIET += "--disable-background-networking --disable-component-update"
MOVE = """<script>
const found = [];
const look = () => {
  const shown = id => document.getElementById(id);
  found.push([shown("step-label").textContent, shown("temperature-label").textContent,
    shown("step-shown").textContent, shown("step-shown").querySelector("line").getAttribute("stroke-width"),
    shown("temperature-shown").textContent, document.documentElement.scrollWidth <= innerWidth]);
};
const move = (id, place) => {
  document.getElementById(id).value = place;
  document.getElementById(id).dispatchEvent(new Event("input"));
  look();
};
look(); move("step", 2); move("temperature", 8);
document.body.innerHTML = "";
document.body.textContent = found.map(f => f.join("@")).join("###");
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "explained.html"
    assert main(["explain", "--distill", "--optimizer", "adam", "--steps", "3", "--html", str(file)]) == 0
    return file


def dump(file, folder, *options: str) -> str:
    """The page's text after its scripts have run."""
    command = [BROWSER, *QUIET.split(), f"--user-data-dir={folder}", *options, "--dump-dom", file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def moved(text: str, tmp_path) -> list[list[str]]:
    """What the page shows at first, after the one slider has moved, and after the other has."""
    file = tmp_path / "moved.html"
    file.write_text(text.replace("</body>", MOVE + "</body>"), encoding="utf-8")
    shown = dump(file, tmp_path / "profile", "--window-size=500,900")
    body = re.search(r"<body>(.*?)</body>", shown, re.DOTALL)[1]
    return [place.split("@") for place in body.strip().split("###")]


def test_the_sliders(page, tmp_path):
    first, later, warmer = moved(page.read_text(encoding="utf-8"), tmp_path)
    assert [first[:2], later[:2], warmer[:2]] == [
        ["1 of 3", "T = 4"],
        ["3 of 3", "T = 4"],
        ["3 of 3", "T = 20"],
    ]
    assert "1. Forward" in first[2] and "Step 3: Forward" in later[2] and later[2] == warmer[2]
    assert first[3] != later[3] == warmer[3]  # the width of a weight's line
    norm = [
        float(re.search(r"gradient of KL is ([\d.e-]+),", place[4])[1]) for place in (first, later, warmer)
    ]
    assert norm[0] == norm[1] > 10 * norm[2]
    assert [place[5] for place in (first, later, warmer)] == ["true"] * 3  # nothing is wider than the window


def test_sliders_that_nothing_follows_are_seen(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    first, later, warmer = moved(
        text.replace('addEventListener("input"', 'addEventListener("never"'), tmp_path
    )
    assert first == later == warmer


def test_nothing_is_loaded(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=[\"'](?!#)|https?:|url\(|@import|fetch\(|XMLHttp", text)
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_without_a_script_the_first_step_is_there(page):
    text = page.read_text(encoding="utf-8")
    assert "1. Forward" in text[: text.index("<script")] and "positive: blue, solid" in text
