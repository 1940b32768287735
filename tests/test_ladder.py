"""The ladder: every rung computes the same bits, every sentence follows from figures, every page stands alone."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import get_num_threads, set_num_threads
from minidl.__main__ import main
from minidl.kernels import ladder as kernels
from minidl.kernels import matmul as product
from minidl.kernels.jit import JIT_DISABLED
from minidl.kernels.target import PANEL_BYTES, TILE_ROWS, TILE_VECTORS
from minidl.ladder import assembly, blas, command, measure, page, rungs, text, waits
from minidl.ladder.figures import Figures, Machine
from minidl.ladder.problem import Problem, Wrong
from minidl.machine import Cache
from minidl.pages import check_writable

KERNELS = ("naive", "reordered", "blocked", "tiled")
SHAPES = [
    *((0, 0, 0), (1, 1, 1), (0, 3, 2), (3, 0, 2), (2, 3, 0), (1, 5, 1)),
    *((5, 7, 3), (13, 33, 17), (7, 9, 513), (25, 41, 260), (6, 16, 32)),
]
compiled = pytest.mark.skipif(JIT_DISABLED, reason="the ladder times compiled code")


def operands(m, k, n):
    rng = np.random.default_rng(m + 10 * k + 100 * n)
    return rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)


# ---------------------------------------------------------------- the rungs


@pytest.mark.parametrize("m, k, n", SHAPES)
def test_all_rungs_give_the_same_bits(m, k, n):
    a, b = operands(m, k, n)
    ours = np.full((m, n), np.nan, np.float32)
    product.matmul(ours, a, b, False, False)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    for name in KERNELS:
        c = np.full((m, n), np.nan, np.float32)
        getattr(kernels, name)(c, a, b)
        np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-4, err_msg=name)
        if not JIT_DISABLED:  # plain NumPy adds in another order
            np.testing.assert_array_equal(c, ours, err_msg=name)


@pytest.mark.parametrize("m, k, n", SHAPES)
def test_the_rung_in_python(m, k, n):
    a, b = operands(m, k, n)
    c = rungs.plain_python(a.tolist(), b.tolist())
    assert [len(row) for row in c] == m * [n if k else 0]  # a list of no rows has no columns
    expected = a.astype(np.float64) @ b
    assert all(
        np.allclose(row, wanted[: len(row)], 1e-6, 1e-6) for row, wanted in zip(c, expected, strict=True)
    )


@compiled
def test_repeated_rungs_are_the_rungs():
    a, b = operands(9, 20, 33)
    for name, repeated in kernels.REPEATED.items():
        once, often = np.zeros((2, 9, 33), np.float32)
        getattr(kernels, name)(once, a, b)
        repeated(often, a, b, 3)
        np.testing.assert_array_equal(once, often, err_msg=name)


def test_a_wrong_product_is_not_timed(monkeypatch):
    problem = Problem(40)
    right = (problem.a.astype(np.float64) @ problem.b).astype(np.float32)
    problem.check("right", right)
    problem.check("the first rows", right[:3])
    for spoil in (np.nan, right[7, 7] + 0.01, 0.0):
        wrong = right.copy()
        wrong[7, 7] = spoil
        with pytest.raises(Wrong, match="rung x is not timed"):
            problem.check("rung x", wrong)
    timed = []
    monkeypatch.setattr("minidl.ladder.problem.least_seconds", lambda *_: timed.append(1))
    with pytest.raises(Wrong, match="idle"):
        problem.time("idle", lambda c, a, b: None, 40, 0.01)
    assert not timed


@compiled
def test_a_wrong_rung_ends_the_ladder(monkeypatch):
    off = replace(rungs.RUNGS[2], name="off by one", product=lambda c, a, b: c.fill(1))
    monkeypatch.setattr(measure, "RUNGS", (off,))
    with pytest.raises(Wrong, match="off by one"):
        next(measure.climb(MACHINE, 16, 0.001))


# ---------------------------------------------------------------- the sentences

CACHES = (Cache(1, 2**15, 64, 64), Cache(2, 2**19, 64, 1024))
MACHINE = Machine(
    name="a processor", caches=CACHES, shares_cores=False, threads=2, ceiling=100e9, ceiling_together=200e9, share=1.0,
    share_together=1.0, latency=1.25e-9, clock=3.2e9, near_bytes=200e9, lanes=8,
)  # fmt: skip


def figures(rate, near=0.0, machine=MACHINE, size=512, **others):
    given = dict(
        size=size, rows=size, rate=rate * 1e9, near=near * 1e9, threads=1, share=1.0, machine=machine
    )
    return Figures(**(given | others))


def test_what_the_interpreter_costs():
    said = waits.interpreter(figures(0.02))
    assert "100 ns for a multiply-add" in said and "could do 5,000" in said


@pytest.mark.parametrize(
    "rate, near, label",
    [
        (1.6, 1.6, "latency."),  # a term takes 1.25 ns, as the multiply-add does
        (1.2, 1.6, "latency, then data."),
        (0.6, 1.6, "data, then latency."),
        (0.6, 0.6, "its own instructions."),  # far slower than the latency, data or no data
    ],
)
def test_naive_waits_for_latency_only_if_its_terms_take_as_long(rate, near, label):
    said = waits.latency(figures(rate, near))
    assert said.startswith(f"Waits for {label}") and "1.25 ns" in said
    assert ("512 numbers in as many cache lines, 32 KB a column" in said) == ("data" in label)
    if rate == 0.6 and near == 1.6:
        assert "waits 62 % of its time" in said and "Here a term takes 3.33 ns" in said


def test_loops_wait_for_bytes_only_if_the_cache_gives_too_few():
    said = waits.bytes_of_b(figures(30, 31))
    assert (
        said.startswith("Waits for bytes: 12 a term")
        and "would need 600 GB/s" in said
        and "gives 200" in said
    )
    assert "hardly more, 31 GFLOP/s" in said and "farther" not in said
    fast = replace(MACHINE, near_bytes=700e9)
    assert waits.bytes_of_b(figures(30, 31, fast)).startswith("Waits for its loads and stores")
    said = waits.bytes_of_c(figures(30, 60, size=1024))
    assert "6 a term" in said and "need 300 GB/s" in said and "waits 50 % of its time" in said
    assert "block of c, 1 MB" in said


@pytest.mark.parametrize("size", [128, 500, 512, 768])
def test_where_the_rows_of_a_panel_lie(size):
    """Counted line by line in a cache of 64 sets of 8 lines."""
    held: dict[int, set[int]] = {}
    for byte in {p * 4 * size + at for p in range(size) for at in range(PANEL_BYTES)}:
        held.setdefault(byte // 64 % 64, set()).add(byte // 64)
    wanted = sum(map(len, held.values()))
    assert waits.panel_room(figures(50, 60, size=size)) == (wanted, 8 * len(held), len(held))
    said = waits.far_rows(figures(50, 60, size=size))
    assert f"lie {4 * size:,} bytes apart" in said and said.startswith("Waits for data")
    assert ("of the 64 sets" in said) == (wanted > 8 * len(held))
    assert "pages of memory" in waits.far_rows(figures(50, 60, replace(MACHINE, caches=()), size=size))
    assert waits.far_rows(figures(59, 60, size=size)).startswith("Waits for little")


def test_the_last_rungs():
    assert waits.lanes_times_clock(figures(80, 90)).startswith("Waits for lanes times clock: 8 lanes x 2 op")
    assert "6.25 billion" in waits.lanes_times_clock(figures(80, 90))
    assert "farther away cost 11 %" in waits.lanes_times_clock(figures(80, 90))
    for rate, near in ((40, 42), (60, 90)):
        assert waits.lanes_times_clock(figures(rate, near)).startswith(
            "Waits for more than lanes times clock"
        )
    quiet = figures(150, threads=2, alone=80e9)
    assert waits.cores(quiet).startswith(
        "Waits for lanes times clock times cores"
    ) and "1.88 times" in waits.cores(quiet)
    busy = replace(quiet, share=0.6)
    for sentence in (waits.cores, waits.numpy):
        assert sentence(busy).startswith(
            "Waits for a free processor: other processes had 40 % of the time of its 2"
        )
    assert ("the same" in waits.numpy(quiet)) != ("is not known" in waits.numpy(quiet))
    assert "free processor" not in waits.numpy(replace(busy, threads=1)), "one thread is timed while it runs"


def test_a_busy_second_core_is_told():
    results = [(rungs.RUNGS[1], figures(1.0, 1.6)), (rungs.THREADS, figures(150, threads=2, alone=80e9))]
    assert text.notes(MACHINE, results) == []
    slow = replace(MACHINE, ceiling_together=110e9)
    (note,) = text.notes(replace(slow, share_together=0.55), results)
    assert "2 threads make 1.10 times the multiply-adds of one, not 2" in note
    assert "another core is busy" in note and "45 %" in note
    (note,) = text.notes(replace(slow, shares_cores=True), results)
    assert "hyper-threads" in note and "busy" not in note
    (note,) = text.notes(slow, results)
    assert "no other process" in note
    (note,) = text.notes(replace(MACHINE, share=0.5), results)
    assert "This processor was busy" in note and "50 %" in note
    assert "above the ceiling" in text.notes(MACHINE, [(rungs.RUNGS[5], figures(120, 90))])[0]


def test_the_near_products_fit_a_first_level_cache():
    for rung in rungs.RUNGS:
        if rung.near:
            m, k, n = rung.near
            assert 2**13 < 4 * (m * k + k * n + m * n) < 2**15 and rung.kernel in KERNELS


def test_every_rung_names_functions_that_exist(monkeypatch):
    assert len(rungs.RUNGS) == 8
    for rung in rungs.RUNGS:
        assert rung.sources
        for place in text.sources(rung):
            file, line, name = re.fullmatch(r"minidl/(.+):(\d+) (\w+)", place).groups()
            lines = (Path(minidl.__file__).parent / file).read_text(encoding="utf-8").splitlines()
            assert re.match(rf"\s*def {name}\(", lines[int(line) - 1])
    with pytest.raises(ValueError, match="minidl/kernels/ladder.py has no function nonsense"):
        text.line_of("kernels/ladder.py", "nonsense")
    monkeypatch.setattr(text.inspect, "getsource", lambda module: open("/no/source"))  # a frozen app has none
    assert text.sources(rungs.TILED) == ["minidl/kernels/ladder.py tiled", "minidl/kernels/tiles.py _tile"]


# ---------------------------------------------------------------- machine code


@compiled
def test_what_is_counted_in_the_inner_loops():
    """The loads and stores are those of which the sentences speak; the tile keeps its sums in registers."""
    naive, reordered, blocked, tile = map(assembly.inner_loop, KERNELS)
    assert (naive.lanes, naive.stores) == (1, 0) and naive.loads == 2 * naive.multiply_adds > 0
    assert reordered.lanes > 1 and reordered.loads == 2 * reordered.stores == 2 * reordered.multiply_adds > 0
    assert blocked.lanes > 1 and 4 * blocked.loads == 5 * blocked.multiply_adds == 20 * blocked.stores > 0
    assert tile.multiply_adds == TILE_ROWS * TILE_VECTORS and tile.lanes * 4 * TILE_VECTORS == PANEL_BYTES
    assert (tile.loads, tile.stores, tile.spills) == (TILE_ROWS + TILE_VECTORS, 0, 0)
    assert f"{tile.multiply_adds} multiply-adds of {tile.lanes} lanes" in str(tile) and "0 spills" in str(
        tile
    )


X86 = """
outer:
	movq	%rsp, %rbp
.LBB0_1:
	vfmadd231ps	%zmm1, %zmm2, %zmm3
.LBB0_2:
	vmovups	64(%rsp), %ymm4
	vfmadd231ps	(%rax), %ymm4, %ymm5
	vmovups	%ymm5, -32(%rbp)
	leaq	8(%rax), %rax
	jne	.LBB0_2
	jmp	.LBB0_1
"""
ARM = """
_tile:
LBB0_1:
	ldp	q0, q1, [x1], #32
	ldr	q2, [sp, #16]
	fmla.4s	v3, v0, v2[0]
	fmla	v4.4s, v1.4s, v2.4s
	str	q3, [x2]
	subs	x3, x3, #1
	b.ne	LBB0_1
"""


def test_loops_are_found_and_counted():
    loop = assembly.find_loop(X86)
    assert len(loop.lines) == 6 and loop.lines[0] == ".LBB0_2:"  # the outer loop has wider vectors
    assert loop[1:] == (1, 8, 2, 1, 2)
    without_frame = X86.replace("movq	%rsp, %rbp", "nop")
    assert assembly.find_loop(without_frame).spills == 1  # %rbp is a register like any other
    assert assembly.find_loop(ARM)[1:] == (2, 4, 3, 1, 1)
    plain = "f:\n.LBB0_1:\n\tmulps\t(%rax), %xmm1\n\taddps\t%xmm1, %xmm2\n\tjne\t.LBB0_1\n"
    assert assembly.find_loop(plain)[1:] == (1, 4, 1, 0, 0)
    with pytest.raises(ValueError, match="no loop"):
        assembly.find_loop("f:\n\tretq\n")


# ---------------------------------------------------------------- the command


@pytest.fixture
def quick(monkeypatch):
    """Each rung for a hundredth of a second."""
    monkeypatch.setattr(command, "_SECONDS", 0.01)
    threads = get_num_threads()
    yield
    set_num_threads(threads)


def run_with_encoding(monkeypatch, encoding, *arguments, columns="60"):
    shown = io.BytesIO()
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding))
    assert main(["ladder", "--size", "128", *arguments]) == 0
    return shown.getvalue().decode(encoding)


class Tags(HTMLParser):
    """Every tag closed in order; every attribute that could fetch something."""

    VOID = {"meta", "rect", "line", "circle", "br"}

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.fetching = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.fetching += [
            name for name, _ in attributes if name in ("src", "href", "data", "action", "xlink:href")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@compiled
def test_the_ladder_at_60_columns_without_utf_8_and_as_a_page(quick, monkeypatch, tmp_path):
    file = tmp_path / "ladder.html"
    shown = run_with_encoding(monkeypatch, "ascii", "--asm", "--html", str(file), "--threads", "2")
    assert max(map(len, shown.splitlines()[:-1])) <= 60 and shown.isascii()
    names = [rung.name for rung in rungs.RUNGS]
    if "threads (" not in shown:  # one processor
        names.remove("threads")
    for number, name in enumerate(names, 1):
        assert re.search(rf"^{number} {name}.* GFLOP/s,", shown, re.M), name
    assert len(re.findall(r"^\[[#| ]{58}\]$", shown, re.M)) == len(names)
    assert shown.count("The inner loop,") == len(KERNELS) and "Waits for lanes times clock" in shown.replace(
        "more than ", ""
    )
    html = file.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(html)
    assert tags.open == [] and tags.fetching == [] and "script" not in tags.seen
    assert not re.search(r"https?:|//\w|url\(|@import", html)
    # the loop of the tile stands on two rungs
    assert tags.seen.count("section") == len(names) and tags.seen.count("details") == len(KERNELS) + 1
    for rung in rungs.RUNGS:
        assert rung.name not in names or rung.name in html


@compiled
def test_bars_of_blocks_where_the_terminal_has_them(quick, monkeypatch):
    shown = run_with_encoding(monkeypatch, "utf-8", "--threads", "1", columns="200")
    assert "\u2588" in shown and "#" not in shown and max(map(len, shown.splitlines())) == 100
    assert "8 NumPy" not in shown and "7 NumPy" in shown and "threads (" not in shown
    assert "so the rung of threads is left out" in " ".join(shown.split())


def test_bars_are_as_long_as_their_speed():
    assert text.bar(figures(200), 42, blocks=False) == "[" + 40 * "#" + "]"
    assert text.bar(figures(50), 42, blocks=False) == "[" + 10 * "#" + 9 * " " + "|" + 20 * " " + "]"
    assert text.bar(figures(51), 42, blocks=True)[11] == "\u258e"  # a fifth of a character
    assert text.bar(figures(0.001), 42, blocks=True)[1] == "\u258f"
    one = replace(MACHINE, threads=1, ceiling_together=100e9)
    assert "|" not in text.bar(figures(50, machine=one), 42, blocks=False)


def test_a_page_says_what_the_machine_is_as_text():
    strange = replace(MACHINE, name='<b>"x" & co')
    made = page.html(512, strange, [(rungs.RUNGS[1], figures(1.0, 1.6, strange))], {})
    assert "&lt;b&gt;&quot;x&quot; &amp; co" in made and "<b>&quot;" not in made


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--html", "no/such/folder/l.html"], "--html no/such/folder/l.html cannot be written: No such file"),
        (["--html", "."], "--html . cannot be written: Is a directory"),
        (["--size", "127"], "--size must be >= 128, got 127"),
        (["--size", "4096"], "--size must be <= 2048, got 4096"),
        (["--threads", "0"], "--threads must be >= 1, got 0"),
        (["--threads", "1000"], "--threads must be <= 256, got 1000"),
    ],
)
def test_bad_options_are_refused_before_anything_is_measured(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(command, "compile_rungs", lambda: pytest.fail("it began to measure"))
    monkeypatch.setattr(command, "JIT_DISABLED", False)
    assert main(["ladder", *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.out == ""


def test_without_compiled_code_there_is_no_ladder(monkeypatch, capsys):
    monkeypatch.setattr(command, "JIT_DISABLED", True)
    assert main(["ladder"]) == 2
    assert "NUMBA_DISABLE_JIT" in capsys.readouterr().err


def test_trying_a_file_changes_nothing(tmp_path):
    old, new = tmp_path / "old.html", tmp_path / "new.html"
    old.write_text("kept")
    for file in (old, new):
        check_writable("--html", str(file))
    assert old.read_text() == "kept" and not new.exists()


def test_numpy_is_timed_in_a_child_that_says_nothing_else(capfd):
    best, share = blas.time_numpy(8, 0.01, 1)
    assert best > 0 and share > 0
    assert capfd.readouterr().err == ""
