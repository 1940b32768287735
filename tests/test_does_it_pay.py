"""benchmarks/does_it_pay.py: its tasks, its verdicts, and one row from end to end."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import does_it_pay


def row(auto, few_labels=True):
    errors = {
        "teacher": [50, 52],
        "labels alone": [100, 104],
        "smoothed 0.1": [99, 101],
        "argmax": [80, 80],
        "T 4, 0.1/0.9": [130, 131],
        "T 2, 0.5/0.5": [88, 92],
        "auto": auto,
    }
    return {"task": "toy", "teacher": "MLP", "errors": errors, "few_labels": few_labels}


def test_what_meets_a_target_and_what_does_not():
    met, missed = does_it_pay.judge(row([90, 91])), does_it_pay.judge(row([99, 105]))
    assert met["best"] == "T 2, 0.5/0.5" and met["within"] and met["pays"] and met["must_pay"]
    assert met["behind"] == [0.5, pytest.approx(1.5)] and met["saved"][0] == 11.5
    assert met["fixed_saved"] == [-30.5, pytest.approx(0.5)]  # beside smoothed labels, which are better
    assert not missed["within"] and not missed["pays"]
    assert not does_it_pay.judge(row([90, 91], few_labels=False))["must_pay"]


def test_tasks_are_drawn_anew_by_each_seed_and_split_cleanly(tmp_path):
    csv = tmp_path / "letters.csv"
    csv.write_text("letter,a,b\n" + "".join(f"{'XY'[i % 2]},{i},{i * i}\n" for i in range(50)))
    for task in does_it_pay.tasks(str(csv)):
        if "scikit" in task.name or task.name in ("wine", "breast cancer"):
            continue
        first, again, other = task.draw(0), task.draw(0), task.draw(1)
        assert np.array_equal(first.x, again.x) and not np.array_equal(first.x, other.x)
        assert len(first.x) == len(first.y) and len(first.x_test) == len(first.y_test)
    assert len(task.draw(0).x) == 40 and set(task.draw(0).y) == {0, 1}


def test_one_row_from_end_to_end(tmp_path, capsys):
    pytest.importorskip("sklearn")
    arguments = ["--quick", "--cases", "wine", "--processes", "1", "--output", str(tmp_path)]
    assert does_it_pay.main(arguments) == 0
    found = json.loads((tmp_path / "does_it_pay.partial.json").read_text())
    sure = {each["teacher"]: each["sure"][0] for each in found["rows"]}
    assert set(sure) == {"MLP", "forest", "boosting"} and not found["complete"]
    assert all(1 / 3 < softened < alone <= 1 and agrees > 0.9 for agrees, alone, softened in sure.values())
    assert "auto within one standard error of the best column: met in" in capsys.readouterr().out
