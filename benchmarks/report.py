"""From the CSV files to what is read: tables in Markdown, bar charts, and the pages that hold them.

A CSV has one line a run: name (the row's), library ('this project', another one, or 'limit'), what was measured, date
(of the day) and where (machine and versions).
"""

import csv
import importlib.metadata
import math
import os
import platform
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.launch import PEERS, ROOT
from common.files import replacing

OURS, LIMIT = "this project", "limit"
UNSOLVED = math.inf
COLOURS = {OURS: "C0", "Stable-Baselines3": "C1", "SBX": "C2"}

# For the Chinese pages, in this order; names and numbers stay.
CHINESE = [
    (r"not solved \((\d+) of (\d+)\)", r"未解决（\2 个中的 \1 个）"),
    (r"(\d+) of (\d+) not solved", r"\2 个中 \1 个未解决"),
    (r"([\d.]+) times", r"\1 倍"),
    (r"(\d) s\b", r"\1 秒"),
    (r"(\d) min\b", r"\1 分钟"),
    ("Rounds: ", "轮数："),
    ("Folder", "文件夹"),
    ("Environment", "环境"),
    ("Median", "中位数"),
    ("Worst", "最差"),
    ("Steps", "步数"),
    ("Seconds", "秒"),
    ("Minutes", "分钟"),
    ("Runs: ", "运行次数："),
    ("Seeds: ", "随机种子："),
    ("Seeds", "随机种子数"),
    (r"(\d+) cores?", r"\1 核"),
    (r"(\d+) environments", r"\1 个环境"),
    (r"(\d+) processes", r"\1 个进程"),
    (r"(\d+) threads", r"\1 个线程"),
    ("this project", "本项目"),
    ("limit", "极限"),
    ("an update a step", "每步更新一次"),
    ("peer: ", "对方："),
    ("batch ", "批尺寸 "),
    (" to ", " 至 "),
    (r" \(", "（"),
    (r"\)", "）"),
    (", ", "，"),
    ("; ", "；"),
    (": ", "："),
]


@dataclass
class Cell:
    """The runs of one library in one row."""

    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def span(self) -> str:
        """Lowest to highest."""
        return f"{rounded(min(self.values))} to {rounded(max(self.values))}"

    @property
    def unsolved(self) -> str:
        """'1 of 3', or nothing if all are solved."""
        count = self.values.count(UNSOLVED)
        return f"{count} of {len(self.values)}" if count else ""


def speed(line: dict) -> float:
    """Steps per second."""
    return float(line["steps_per_second"])


def seconds(line: dict) -> float:
    """Seconds to the solution, UNSOLVED if there is none."""
    return float(line["seconds"]) if str(line["solved"]) == "True" else UNSOLVED


def cells(lines: list[dict], value: Callable[[dict], float]) -> dict[str, dict[str, Cell]]:
    """{row: {library: its cell}}, in the lines' order; value: of a line, `speed` or `seconds`."""
    rows = {}
    for line in lines:
        rows.setdefault(line["name"], {}).setdefault(line["library"], Cell([])).values.append(value(line))
    return rows


def rounded(x: float) -> str:
    """Three digits, more would be noise; one after the point below 100."""
    return f"{x:.1f}" if x < 100 else f"{round(x, 2 - math.floor(math.log10(x))):,.0f}"


def times(ratio: float) -> str:
    """How many times as fast this project is."""
    return f"{ratio:.0f} times" if ratio >= 9.95 else f"{ratio:.1f} times"


def throughput_cell(row: dict[str, Cell], library: str, brief: bool) -> str:
    """Median and range, and how many times as fast this project is; of the limit, the part that it reaches."""
    cell, notes = row[library], []
    if not brief:
        notes.append(cell.span)
    if library != OURS and OURS in row:
        ratio = row[OURS].median / cell.median
        notes.append(f"{100 * ratio:.{0 if ratio > 0.1 else 1}f} %" if library == LIMIT else times(ratio))
    return rounded(cell.median) + (f" ({'; '.join(notes)})" if notes else "")


def solve_cell(row: dict[str, Cell], library: str, brief: bool) -> str:
    """Median and range, and how many times as fast this project is. A run without a solution counts as the longest."""
    cell, notes = row[library], []
    if cell.median == UNSOLVED:
        return f"not solved ({cell.unsolved})"
    if cell.unsolved:
        notes.append(f"{cell.unsolved} not solved")
    elif not brief:
        notes.append(cell.span)
    if library != OURS and OURS in row and row[OURS].median < UNSOLVED:
        notes.append(times(cell.median / row[OURS].median))
    return rounded(cell.median) + (f" ({'; '.join(notes)})" if notes else "")


KINDS = {"throughput": (speed, throughput_cell), "solve": (seconds, solve_cell)}  # what counts, and how it is written


def table(kind: str, lines: list[dict], brief: bool = False) -> str:
    """In Markdown, with a line below it that says how often, when and where.

    kind: 'throughput' or 'solve'.  brief: without ranges, limits and versions.
    """
    value, cell = KINDS[kind]
    libraries = [OURS, *PEERS, *([LIMIT] if kind == "throughput" and not brief else [])]
    text = [f"| | {' | '.join(libraries)} |", "|---" * (len(libraries) + 1) + "|"]
    rows = cells(lines, value)
    for name, row in rows.items():
        text.append(f"| {name} | {' | '.join(cell(row, each, brief) if each in row else '' for each in libraries)} |")
    counts = sorted({len(each.values) for row in rows.values() for each in row.values()})
    dates = sorted({line["date"] for line in lines})
    often = f"{'Rounds' if kind == 'throughput' else 'Runs'}: {span(counts)}"
    parts = [line["where"].split(", ")[: 2 if brief else None] for line in lines]
    where = " / ".join(dict.fromkeys(", ".join(each) for each in parts))
    return "\n".join([*text, "", f"{often}; {span(dates)}; {where}."])


def span(values: list) -> str:
    """'2' or '2 to 5', of sorted values."""
    return " to ".join(map(str, dict.fromkeys([values[0], values[-1]])))


def chinese(text: str) -> str:
    """What `table` gives, in Chinese."""
    for english, replacement in CHINESE:
        text = re.sub(english, replacement, text)
    return re.sub(r"\.$", "。", text)


def machine() -> str:
    """This machine and the versions that every run depends on."""
    processor = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        processor = re.sub(r"\((R|TM)\)", "", names[0]) if names else processor
    parts = [processor, f"{os.cpu_count()} cores", platform.system(), f"Python {platform.python_version()}"]
    return ", ".join([*parts, f"TensorFlow {importlib.metadata.version('tensorflow')}"])


def read(path: Path) -> list[dict]:
    """The lines of a CSV file; none if there is no file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, lines: list[dict]) -> None:
    """Make the CSV file, in one piece; the first line has all columns."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def between(page: str, mark: str, text: str) -> str:
    """The page with new text between `<!-- mark -->` and the next `<!-- end -->`, if it has that mark."""
    return re.sub(
        f"(<!-- {mark} -->).*?(<!-- end -->)", lambda match: f"{match[1]}\n\n{text}\n\n{match[2]}", page, flags=re.S
    )


def fill(page: str, kind: str, lines: list[dict], translate: Callable[[str], str] = str) -> str:
    """The page with new tables: the whole one at `<!-- kind -->`, the brief one at `<!-- kind, brief -->`."""
    page = between(page, kind, translate(table(kind, lines)))
    return between(page, f"{kind}, brief", translate(table(kind, lines, brief=True)))


def fill_pages(kind: str, lines: list[dict]) -> None:
    """Bring the tables of all READMEs up to date."""
    for folder in (ROOT, ROOT / "benchmarks"):
        for name, translate in (("README.md", str), ("README.zh-CN.md", chinese)):
            page = (folder / name).read_text(encoding="utf-8")
            (folder / name).write_text(fill(page, kind, lines, translate), encoding="utf-8")


def chart(kind: str, lines: list[dict], path: Path) -> None:
    """Bars of the medians with lines from lowest to highest, as a PNG file."""
    from matplotlib.figure import Figure  # only now: the first run need not wait for it

    rows = cells(lines, KINDS[kind][0])
    figure = Figure(figsize=(9, 1 + 0.62 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for y, row in enumerate(rows.values()):
        bars = [library for library in COLOURS if library in row]
        for i, library in enumerate(bars):
            values = [value for value in row[library].values if value < UNSOLVED]
            place, middle = y + 0.26 * (i - (len(bars) - 1) / 2), row[library].median
            if middle == UNSOLVED:
                words = dict(color=COLOURS[library], fontsize=8, va="center", transform=axes.get_yaxis_transform())
                axes.text(0.005, place, "not solved", **words)
                continue
            error = [[middle - min(values)], [max(values) - middle]]
            axes.barh(place, middle, 0.24, color=COLOURS[library], label=library)
            axes.errorbar(middle, place, xerr=error, color="0.3", linewidth=1, capsize=2)
        if LIMIT in row:
            axes.plot([row[LIMIT].median] * 2, [y - 0.4, y + 0.4], color="black", linewidth=1.5, label="limit")
    axes.set_yticks(range(len(rows)), [name.replace(" (peer", "\n(peer") for name in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    if kind == "throughput":
        axes.set_xscale("log")
    axes.set_xlabel(
        "steps per second (more is better)"
        if kind == "throughput"
        else "seconds from launch to the first greedy mean above the goal (less is better)"
    )
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    legend = dict(zip(labels, handles, strict=True))  # one of each
    figure.legend(legend.values(), legend, loc="outside upper center", ncols=len(COLOURS) + 1, frameon=False)
    figure.savefig(path, dpi=100)
