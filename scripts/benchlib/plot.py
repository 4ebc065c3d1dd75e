#!/usr/bin/env python3
"""Draws what a bench-* script left: plot.py RESULTS.json PICTURE.svg (or .png). Takes matplotlib.

A panel has `title`, `x`, `y` (the names of the axes), `kind` and `series`, and what else it needs of:
  kind    "lines", "steps", or "bars" (one group for each of `groups`, one bar of it for each series)
  series  of lines and steps: {"name", "x": [...], "y": [...]}; of bars: {"name", "y": [...], "goals": [...]}, null for
          what is missing; a goal is drawn as a line across its bar
  log     "x", "y" or "xy": which axes are logarithmic
  marks   [{"x", "text", "side"}]: vertical lines with a word at each, whose "right" (the default) or "left" end
          is at the line
"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as pyplot
from matplotlib.ticker import FuncFormatter

NUMBERS = FuncFormatter(lambda value, _: f"{value:g}" if abs(value) < 10_000 else f"{value / 1000:g}k")


def logarithmic(panel, axis):
    """Whether an axis is to be, and can be: a run that was cut short may have nothing for a panel."""
    return axis in panel.get("log",
                             "") and any((value or 0) > 0 for series in panel["series"] for value in series[axis])


def draw_bars(axes, panel):
    count = len(panel["series"])
    width = 0.8 / count
    for index, series in enumerate(panel["series"]):
        places = [group - 0.4 + (index + 0.5) * width for group in range(len(panel["groups"]))]
        axes.bar(places, [value or 0 for value in series["y"]], width, label=series["name"])
        for place, goal in zip(places, series.get("goals", [])):
            if goal is not None:
                axes.plot([place - width / 2, place + width / 2], [goal, goal], color="black", linewidth=1.5)
    axes.set_xticks(range(len(panel["groups"])))
    axes.set_xticklabels(panel["groups"], fontsize="small")


def draw_lines(axes, panel):
    for series in panel["series"]:
        if panel["kind"] == "steps":
            axes.plot(series["x"], series["y"], drawstyle="steps-pre", linewidth=1, label=series["name"])
        else:
            axes.plot(series["x"], series["y"], marker="o", markersize=3, linewidth=1.2, label=series["name"])
    if logarithmic(panel, "x"):
        axes.set_xscale("log")
        axes.set_xticks(sorted({x for series in panel["series"] for x in series["x"]})
                        if len(panel["series"][0]["x"]) < 10 else axes.get_xticks())
        axes.minorticks_off()


def draw(panel, axes):
    axes.set(title=panel["title"], xlabel=panel["x"], ylabel=panel["y"])
    (draw_bars if panel["kind"] == "bars" else draw_lines)(axes, panel)
    if logarithmic(panel, "y"):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    if panel["kind"] != "bars":
        axes.xaxis.set_major_formatter(NUMBERS)
    axes.yaxis.set_major_formatter(NUMBERS)
    axes.grid(True, axis="y" if panel["kind"] == "bars" else "both", linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)
    if panel.get("marks"):
        axes.set_ylim(top=axes.get_ylim()[1] * 1.25)
    for mark in panel.get("marks", []):
        axes.axvline(mark["x"], color="black", linewidth=0.8, linestyle="--")
        axes.text(mark["x"], axes.get_ylim()[1] * 0.99, mark["text"], rotation=90, va="top",
                  ha=mark.get("side", "right"), fontsize="x-small")
    if len(panel["series"]) > 1:
        axes.legend(fontsize="x-small")


def main():
    if len(sys.argv) != 3 or sys.argv[1].startswith("-"):
        print(__doc__)
        sys.exit(0 if sys.argv[1:] in (["--help"], ["-h"]) else 2)
    with open(sys.argv[1]) as file:
        results = json.load(file)
    panels = results["panels"]
    wide = any(panel["kind"] == "steps" for panel in panels)
    columns = 1 if wide else min(len(panels), 2 if len(panels) == 4 else 3)
    rows = -(-len(panels) // columns)
    figure, grid = pyplot.subplots(rows, columns, figsize=(11 if wide else 6.5 * columns, 4.2 * rows), squeeze=False)
    for axes, panel in zip(grid.flat, panels):
        draw(panel, axes)
    for axes in list(grid.flat)[len(panels):]:
        axes.axis("off")
    figure.suptitle(f"{results['title']}\n{results['machine']}", fontsize="medium")
    # The title's two lines have a place of their own, however high the figure is.
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / figure.get_figheight()))
    figure.savefig(sys.argv[2])


if __name__ == "__main__":
    main()
