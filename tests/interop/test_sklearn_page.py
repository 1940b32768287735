"""docs/sklearn.md: its sessions say what it prints, its listings run."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest
from extras import needs

needs("sklearn")

PAGE = (Path(__file__).parents[2] / "docs" / "sklearn.md").read_text(encoding="utf-8")
SESSIONS = re.findall(r"```pycon\n(.*?)```", PAGE, re.DOTALL)
LISTINGS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def failures(text, capsys):
    with np.printoptions(precision=3, suppress=False):  # as scikit-learn prints its guide
        test = doctest.DocTestParser().get_doctest(text, {}, "docs/sklearn.md", None, None)
        result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
    return result.attempted, result.failed


def test_the_guides_listings_say_what_scikit_learn_says(capsys):
    ours = "".join(SESSIONS)
    attempted, failed = failures(ours, capsys)
    assert attempted == 18 and failed == 0, capsys.readouterr().out
    theirs = ours.replace("from minidl.interop.sklearn import", "from sklearn.neural_network import")
    assert failures(theirs, capsys) == (attempted, 0), capsys.readouterr().out
    wrong = ours.replace("9.998e-01", "9.997e-01")
    assert wrong != ours and failures(wrong, capsys)[1] == 1


@pytest.mark.parametrize("listing", range(len(LISTINGS)))
def test_listings_run(listing, capsys):
    names = {}
    exec(compile(LISTINGS[listing], f"docs/sklearn.md, listing {listing}", "exec"), names)
    if "unlabelled" in names:
        assert names["student"].score(names["X_test"], names["y_test"]) > 0.93
        assert names["unlabelled"].score(names["X_test"], names["y_test"]) > 0.93
    if "search" in names:
        assert names["search"].best_score_ > 0.9
    assert len(LISTINGS) == 3
