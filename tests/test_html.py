"""What a notebook shows of models, histories, reports and sweeps: HTML that is whole, escaped, and without scripts."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from minidl.callbacks import History
from minidl.layers import Dense, Dropout, Input
from minidl.models import Sequential
from minidl.report import DistillationReport, Figures
from minidl.sweep import Sweep
from minidl.tables import format_table, html_lines, html_table

EVIL = '<script>alert("&")</script>'


class Page(HTMLParser):
    """Reads HTML: the cells of its rows, its paragraphs; refuses what is not closed, and what could run or load."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.rows, self.paragraphs, self._open, self._text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        assert tag in {"div", "table", "thead", "tbody", "tr", "th", "td", "p"}, f"<{tag}>"
        assert {name for name, _ in attributes} <= {"style"} and "url" not in str(attributes)
        self._open.append(tag)
        self._text = ""
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag in ("th", "td"):
            self.rows[-1].append(self._text)
        elif tag == "p":
            self.paragraphs.append(self._text)

    def handle_data(self, data):
        self._text += data


def history(**logs) -> History:
    made = History()
    made.history = logs
    made.epoch = list(range(max(map(len, logs.values()), default=0)))
    return made


def test_the_reader_refuses_what_it_should():
    """The control of all checks below."""
    for text in (
        f"<p>{EVIL}</p>",
        "<p>open",
        "<div><p></div></p>",
        '<p onclick="f()">a</p>',
        '<img src="a">',
    ):
        with pytest.raises(AssertionError):
            Page(text)


def test_tables_and_lines_are_escaped():
    page = Page(html_table(["a", EVIL], [["1", "2"], [EVIL, "x & y"]]) + html_lines([EVIL, "b"]))
    assert page.rows == [["a", EVIL], ["1", "2"], [EVIL, "x & y"]] and page.paragraphs == [EVIL, "b"]


def test_a_table_scrolls_where_it_is_too_wide_and_takes_the_colours_of_the_page():
    text = html_table(["a"], [["1"]])
    assert text.startswith('<div style="overflow-x:auto') and "color:" not in text.replace("border-color", "")


def test_a_model_shows_the_table_that_summary_prints():
    model = Sequential([Input((4,)), Dense(5, "relu", name=EVIL), Dropout(0.5), Dense(3)], name=EVIL)
    page, lines = Page(model._repr_html_()), []
    model.summary(print_fn=lines.append)
    assert page.paragraphs[0] == lines[0] == f'Model: "{EVIL}"' and page.paragraphs[1:] == lines[6:]
    head, *rows = page.rows
    assert format_table(head, rows).split("\n") == lines[1:6]
    assert rows[0] == [f"{EVIL} (Dense)", "(None, 5)", "25", "100", "20"] and rows[2][2:] == [
        "18",
        "72",
        "15",
    ]
    assert Page(Sequential()._repr_html_()).rows == [head]
    assert "? (unbuilt)" in Page(Sequential([Dense(3)])._repr_html_()).rows[1]


def test_a_history_shows_its_last_epochs():
    shown = Page(history(loss=[1.0, 0.5], **{EVIL: [2.0, 1e-5]})._repr_html_())
    assert shown.rows == [["epoch", "loss", EVIL], ["1", "1.0000", "2.0000"], ["2", "0.5000", "1.0000e-05"]]
    assert shown.paragraphs == []
    long = history(loss=[1.0 / n for n in range(1, 31)], val_loss=[3.0, 2.0, 1.0])
    long.epoch = list(range(5, 35))
    page = Page(long._repr_html_())
    assert [row[0] for row in page.rows] == ["epoch", *map(str, range(26, 36))] and page.rows[-1][
        1
    ] == "0.0333"
    assert page.paragraphs == ["the last 10 of 30 epochs", "val_loss, of 3 of 30 epochs: 1.0000 at last"]
    assert Page(History()._repr_html_()).rows == [["epoch"]]


def test_a_report_shows_its_tables_and_notes():
    models = [
        Figures(role, EVIL, 10, 40, samples=9, loss=1.0, errors=2, accuracy=0.5, class_errors=[1, 0, 1])
        for role in ("student", "teacher")
    ]
    report = DistillationReport(*models, notes=[EVIL], loss=EVIL, seconds=1.0)
    page, text = Page(report._repr_html_()), str(report)
    assert page.paragraphs == [f"{EVIL}, 1.0 s", EVIL] and len(page.rows) == 6
    assert page.rows[1][:4] == ["teacher", EVIL, "10", "40"] and page.rows[-1] == ["student", "1", "0", "1"]
    tables = format_table(page.rows[0], page.rows[1:3]), format_table(page.rows[3], page.rows[4:])
    assert text.startswith("\n\n".join(tables)), "print shows the same"


def test_a_sweep_shows_its_table_and_notes():
    figures = {
        f"{name}_{end}": 1.0
        for name in ("errors", "accuracy", "agreement", "loss")
        for end in ("mean", "std")
    }
    swept = Sweep([{"setting": EVIL, "runs": 3, **figures}], [], [EVIL])
    page = Page(swept._repr_html_())
    assert page.paragraphs == [EVIL] and page.rows[1][:3] == [EVIL, "3", "1.0 +- 1.0"]
    assert str(swept).startswith(format_table(page.rows[0], page.rows[1:]))
