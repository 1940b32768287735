"""Every page of results links the pictures that stand beside it, and what a picture shows follows from its records."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import pictures, report

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"


def links(text: str) -> set[str]:
    return set(re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text))


def test_every_picture_of_the_results_is_linked_and_every_link_has_its_picture():
    linked = {name for page in RESULTS.glob("*.md") for name in links(page.read_text(encoding="utf-8"))}
    drawn = {path.name for path in RESULTS.glob("*.png") if ".partial." not in path.name}
    assert linked == drawn and len(drawn) >= 16
    assert links("![a picture](one.png) and [a page](two.md)") == {"one.png"}, "control"


def test_what_grows_from_case_to_case():
    widths = [f"784-{n}-{n}-10, batch 64" for n in (16, 64, 256, 1024)]
    assert pictures.find_growth(widths) == ("n of 784-n-n-10, batch 64", [16, 64, 256, 1024])
    assert pictures.find_growth(["cube 16", "cube 32", "cube 8", "cube 2"]) == ("n of cube n", [16, 32, 8, 2])
    logits = ["(32, 10)", "(128, 10)", "(256, 1000)", "(64, 32000)"]
    assert pictures.find_growth(logits) == ("(n, m), placed by n x m", [320, 1280, 256_000, 2_048_000])
    for names in (widths[:3], ["small 1 forward 32x784x64", *widths], ["import", "fit", "predict", "save"]):
        assert pictures.find_growth(names) is None


def test_a_picture_is_called_after_its_suite_and_group():
    several = {"suite": "steps", "cases": [{"group": "small net (784-64-10)"}, {"group": "width, batch 64"}]}
    assert report.picture_name(several, "small net (784-64-10)") == "steps_small_net"
    assert report.picture_name(several, "width, batch 64") == "steps_width_batch_64"
    assert report.picture_name({"suite": "steps", "cases": several["cases"][:1]}, "small net") == "steps"


def test_an_incomplete_run_links_its_own_pictures(tmp_path):
    text = "![one](toy.png)"
    for complete, name in ((True, "toy"), (False, "toy.partial")):
        written = report.write_files("toy", {}, text, b"picture", tmp_path, complete)
        assert {path.name for path in written} == {f"{name}.json", f"{name}.md", f"{name}.png"}
        assert links((tmp_path / f"{name}.md").read_text()) == {f"{name}.png"}
