"""What a script leaves: a table, the figures as JSON, and a picture."""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
import typing

from .cluster import ROOT

PLOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "plot.py")


def arguments(description, seconds=None):
    """A parser with the options that all scripts have; with --seconds if there is a default for it."""
    signal.signal(signal.SIGTERM, terminated)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mpaxos", metavar="PATH",
                        help="the executable (default: the release build of this checkout, brought up to date)")
    folder = os.path.join(ROOT, "bench-results")
    parser.add_argument("--out", metavar="FOLDER", default=folder,
                        help="where tables, JSON and pictures go (default bench-results)")
    if seconds is not None:
        parser.add_argument("--seconds", type=float, default=seconds,
                            help=f"measured seconds of each run (default {seconds:g})")
    return parser


def terminated(*_):
    """Ends as by ctrl-C, so that clusters and their pools go and results are left; once, since that takes a moment."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def parse(parser, description, **quick):
    """What the command line says; --quick stands for other defaults."""
    parser.add_argument("--quick", action="store_true", help=description)
    if parser.parse_args().quick:
        parser.set_defaults(**quick)
    return parser.parse_args()


def progress(text):
    print(text, file=sys.stderr, flush=True)


def machine():
    """The machine, and how busy it is, in a line: no figure means anything without."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{os.cpu_count()} cores of {model}, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d %H:%M')}"


def text(value, digits=None):
    """A number as a person reads it; a dash for what could not be measured."""
    if value is None or value != value:
        return "-"
    if isinstance(value, float):
        if digits is None:
            digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
        return f"{value:.{digits}f}"
    return str(value)


def table(rows):
    """Rows as lines of aligned columns, the first row a heading: first column to the left, numbers to the right."""
    rows = [[cell if isinstance(cell, str) else text(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width) for column,
                 (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def without_nan(value):
    """The same with null for what is no number, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and value != value else value


class Results(typing.NamedTuple):
    """What was measured: the table's rows, the first one its heading, and lines below it; figures for JSON; panels as
    plot.py describes them.
    """

    title: str
    rows: list
    figures: typing.Any
    panels: list
    notes: typing.Sequence = ()


@contextlib.contextmanager
def leaving(folder, name, results):
    """Leaves what `results()` makes of the measurements of the `with` block. A block that is interrupted or fails
    leaves what it has, marked as incomplete; nothing, if the table has no row yet."""
    try:
        yield
    except BaseException as error:
        found = results()
        if len(found.rows) > 1:
            leave(folder, name, found, reason(error))
        else:
            progress("nothing was measured, nothing is written")
        if isinstance(error, KeyboardInterrupt):
            sys.exit(130)
        raise
    leave(folder, name, results())


def reason(error):
    """Why a run ended early, in a line."""
    if isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code == 143):
        return "interrupted"
    lines = str(error).splitlines() or [""]
    return lines[0] if isinstance(error, SystemExit) else f"{type(error).__name__}: {lines[0]}"


def errors(counts):
    """A note on requests of this system that failed, if any did; `counts` by what was measured."""
    some = [f"{count} in {where}" for where, count in counts.items() if count]
    return ["errors of this system: " + "; ".join(some)] if some else []


def leave(folder, name, results, incomplete=None):
    """Writes NAME.txt, NAME.json and NAME.svg, and prints the table."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    title = f"INCOMPLETE ({incomplete}): {results.title}" if incomplete else results.title
    subtitle = machine()
    page = "\n".join([title, subtitle, "", table(results.rows), *[""][: len(results.notes)], *results.notes]) + "\n"
    content = {
        "title": title, "machine": subtitle, "incomplete": incomplete, "notes": results.notes,
        "figures": results.figures, "panels": results.panels,
    }
    with open(path + ".txt", "w") as file:
        file.write(page)
    with open(path + ".json", "w") as file:
        json.dump(without_nan(content), file, indent=1, allow_nan=False)
    print("\n" + page, flush=True)
    drawn = draw(path)
    print(f"written: {path}.txt, .json" + (", .svg" if drawn else ""), flush=True)


def draw(path):
    """Draws PATH.json with the first Python that has matplotlib: the system's package may belong to another than this
    one.
    """
    for python in (sys.executable, "/usr/bin/python3"):
        if os.path.exists(python) and subprocess.run([python, "-c", "import matplotlib"],
                                                     capture_output=True).returncode == 0:
            return subprocess.run([python, PLOT, path + ".json", path + ".svg"]).returncode == 0
    progress(f"no picture: it takes matplotlib (apt-get install python3-matplotlib); then: python3 {os.path.relpath(PLOT)} {path}.json {path}.svg")
    return False
