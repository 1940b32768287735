"""From times to what is read: the machine, Markdown tables; files replaced whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "numpy",
    "numba",
    "llvmlite",
    "scikit-learn",
    "torch",
    "jax",
    "jaxlib",
    "optax",
    "keras",
    "onnx",
    "onnxruntime",
    "minidl",
)


def label(key: tuple[str, int]) -> str:
    """("minidl", 2) -> "minidl@2": a peer at a thread count, as written in the JSON."""
    return f"{key[0]}@{key[1]}"


def machine() -> dict:
    """The processor, its caches, the system, the versions, and how busy it was."""
    about = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        values = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        wanted = ("avx512f", "avx2", "fma", "sse4_2", "asimd")
        about["processor"] = (
            f"{values.get('model name', '?')} (family {values.get('cpu family', '?')}, "
            f"model {values.get('model', '?')})"
        )
        about["vectors"] = [w for w in wanted if w in values.get("flags", values.get("Features", "")).split()]
    except OSError:
        about["processor"] = platform.processor() or platform.machine()
    caches = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / f).read_text().strip() for f in ("level", "type", "size"))
        except OSError:
            continue
        caches.append(f"L{level} {kind.lower()} {size}")
    about["caches"] = caches
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        about["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    if hasattr(os, "getloadavg"):
        about["load_before"] = round(os.getloadavg()[0], 2)
    about["versions"] = {}
    for name in PACKAGES:
        try:
            about["versions"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return about


# ---------------------------------------------------------------- reading a record


def _times(record: dict, peers: tuple[str, ...] | None = None, threads: int | None = None) -> list:
    found = []
    for key, entry in record["times"].items():
        peer, _, count = key.rpartition("@")
        if (peers is None or peer in peers) and (threads is None or int(count) == threads):
            found.append((entry["median"], key))
    return sorted(found)


def best(record: dict, peers: tuple[str, ...] | None = None, threads: int | None = None):
    """(median seconds, "peer@threads") of the fastest, or None."""
    found = _times(record, peers, threads)
    return found[0] if found else None


def best_rival(record: dict):
    """As ``best``, over everybody but minidl in any form."""
    names = {key.rpartition("@")[0] for key in record["times"]}
    rivals = tuple(name for name in names if not name.startswith("minidl"))
    return best(record, rivals) if rivals else None


def judge(target, results: dict) -> dict:
    """A target's ratio and whether it is met; ratio None where one side was not measured."""
    records = {record["name"]: record for record in results["cases"]}
    verdict = {"text": target.text, "case": target.case, "bound": target.bound, "ratio": None, "met": None}
    record, other = records.get(target.case), records.get(target.against_case or target.case)
    if record is None or other is None:
        return verdict
    mine = best(record, (target.peer,), target.threads)
    if target.against == ("limit",):
        threads = str(target.against_threads or (int(mine[1].rpartition("@")[2]) if mine else 1))
        theirs = (other["limits"][threads]["fma_seconds"], "limit") if threads in other["limits"] else None
    else:
        theirs = best(other, target.against, target.against_threads)
    if mine and theirs:
        verdict["ratio"] = mine[0] / theirs[0]
        verdict["met"] = verdict["ratio"] <= target.bound
    return verdict


# ---------------------------------------------------------------- words


def duration(seconds: float) -> str:
    """Three significant digits with the unit that suits."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")):
        if seconds >= scale or unit == "ns":
            value = seconds / scale
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    raise AssertionError


def case_line(record: dict, unit: str) -> str:
    parts = [f"{key} {duration(seconds)}" for seconds, key in _times(record)]
    return f"{record['name']}, a {unit}: " + (", ".join(parts) or "nothing was timed")


def _row(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [_row(header), _row(["---"] + ["---:"] * (len(header) - 1)), *map(_row, rows), ""]


def circumstances(results: dict) -> str:
    """When, on what and with which versions a run was made, and how long it took."""
    about = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{about['date']}. {about['processor']}, {about['cores']} cores, {', '.join(about['caches'])}, "
        f"{about.get('memory_gib', '?')} GiB; load before the run {about.get('load_before', '?')}. "
        f"{about['system']}, Python {about['python']}, {versions}. "
        f"The run took {results.get('seconds', '?')} s."
    )


def markdown(results: dict) -> str:
    """The whole report of one suite."""
    lines = [f"# {results['title']}", ""]
    if results["notes"]:
        lines += [results["notes"], ""]
    lines += [
        circumstances(results),
        "",
        f"Median time of one {results['unit']}. `@2`: with two threads. Best peer: whichever of the others "
        "was fastest, at its best thread count. Limit: the larger of the arithmetic at the measured "
        "multiply-add ceiling and the unavoidable traffic at the measured memory bandwidth, for as many "
        "threads.",
        "",
    ]
    lines += _summary(results)
    if results.get("targets"):
        rows = []
        for t in results["targets"]:
            ratio = "not measured" if t["ratio"] is None else f"{t['ratio']:.2f}"
            rows.append(
                [t["text"], f"≤ {t['bound']:.2f}", ratio, {True: "yes", False: "no", None: ""}[t["met"]]]
            )
        lines += ["## Targets", "", *_table(["ratio of times", "target", "measured", "met"], rows)]
    lines += results.get("sections", [])
    lines += _everybody(results) + _memory(results) + _limits(results)
    refused = [(r["name"], key, why) for r in results["cases"] for key, why in r["refused"].items()]
    if refused:
        lines += ["## Not timed", ""]
        lines += [f"- {name}, {key}: {why.strip().splitlines()[-1]}" for name, key, why in refused] + [""]
    return "\n".join(lines)


def _summary(results: dict) -> list[str]:
    rows = []
    counts = sorted({int(k.rpartition("@")[2]) for r in results["cases"] for k in r["times"]})
    for record in results["cases"]:
        if best(record, ("minidl",)) is None and record["group"] == "ladder":
            continue
        mine = {t: best(record, ("minidl",), t) for t in counts}
        overall, rival = best(record, ("minidl",)), best_rival(record)
        row = [record["name"]] + [duration(mine[t][0]) if mine[t] else "" for t in counts]
        row += [f"{rival[1]}: {duration(rival[0])}" if rival else ""]
        row += [f"**{overall[0] / rival[0]:.2f}**" if rival and overall else ""]
        for t in counts:
            limit = record["limits"].get(str(t))
            row.append(f"{mine[t][0] / limit['seconds']:.2f}" if limit and mine[t] else "")
        rows.append(row)
    header = [
        "case",
        *(f"minidl@{t}" for t in counts),
        "best peer",
        "ratio to it",
        *(f"ratio to limit@{t}" for t in counts),
    ]
    return _table(header, rows)


def _everybody(results: dict) -> list[str]:
    groups: dict[str, list[dict]] = {}
    for record in results["cases"]:
        groups.setdefault(record["group"], []).append(record)
    lines = []
    for group, records in groups.items():
        names = list(dict.fromkeys(key for record in records for key in record["times"]))
        rows = [
            [r["name"], *(duration(r["times"][n]["median"]) if n in r["times"] else "" for n in names)]
            for r in records
        ]
        if names:
            lines += [f"## Everybody{', ' if group else ''}{group}", ""]
            lines += [f"![{group or results['title']}]({picture_name(results, group)}.png)", ""]
            lines += _table(["case", *names], rows)
    return lines


def picture_name(results: dict, group: str) -> str:
    """Of a group's picture, without ending: "train_step_width_batch_64"; the suite's if there is but one group."""
    if len({record["group"] for record in results["cases"]}) == 1:
        return results["suite"]
    words = re.findall(r"[a-z0-9]+", re.sub(r"\(.*?\)", "", group.lower()))
    return "_".join([results["suite"], *words])


def _memory(results: dict) -> list[str]:
    lines = []
    for record in results["cases"]:
        if record["memory"]:
            rows = [
                [key, f"{m['loaded']:,.0f}", f"{m['peak']:,.0f}", f"{m['peak'] - m['loaded']:,.0f}"]
                for key, m in record["memory"].items()
            ]
            lines += [f"## Peak memory, {record['name']}", "", "Resident MiB, data set included.", ""]
            lines += _table(["", "after import", "peak", "difference"], rows)
    return lines


def _limits(results: dict) -> list[str]:
    rows = []
    for record in results["cases"]:
        for threads, limit in record["limits"].items():
            fma = f"{limit['fma'] / 1e9:.0f}" if "fma" in limit else ""
            memory = f"{limit['memory'] / 1e9:.1f}" if "memory" in limit else ""
            rows.append([record["name"], threads, fma, memory, duration(limit["seconds"])])
    if not rows:
        return []
    return [
        "## The machine's limit in the same rounds",
        "",
        *_table(["case", "threads", "GFLOP/s", "GB/s", f"least time of one {results['unit']}"], rows),
    ]


# ---------------------------------------------------------------- files


def replace(path: Path, data: bytes) -> None:
    """Write beside, sync, rename: a reader finds the old file or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_files(
    stem: str,
    results: dict,
    text: str,
    pictures: bytes | Mapping[str, bytes] | None,
    folder: Path,
    complete: bool,
) -> list[Path]:
    """Replace ``stem``'s files, each whole; ``stem.partial``'s when the run is not complete.

    ``pictures``: PNG by the name of its file, without ending, or a single one, which is called ``stem``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = "" if complete else ".partial"
    if not isinstance(pictures, Mapping):
        pictures = {} if pictures is None else {stem: pictures}
    files = {
        f"{stem}{partial}.json": (json.dumps({**results, "complete": complete}, indent=1) + "\n").encode(),
        f"{stem}{partial}.md": text.replace(".png)", f"{partial}.png)").encode(),
    }
    files |= {f"{name}{partial}.png": data for name, data in pictures.items()}
    for name, data in files.items():
        replace(folder / name, data)
    return [folder / name for name in files]
