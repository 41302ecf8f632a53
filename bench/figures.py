"""What the benchmarks under bench/ share: options, tables of figures, verdicts."""

import argparse
import json
import os
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(os.environ.get("BOTHY_BUILD_DIR", ROOT / "build")).resolve()


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark here has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s")
    made.add_argument("--server", type=pathlib.Path, default=ROOT / "build/bin/bothy", metavar="BOTHY", help="default: %(default)s")
    made.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release", help="where the benchmark's programs are")
    made.add_argument("--json", action="store_true", help="print the figures as JSON")
    made.add_argument("--check", action="store_true", help="fail when a figure misses its target")
    return made


def median_of(samples: list[dict], name: str) -> float:
    return statistics.median(sample[name] for sample in samples)


def progress(text: str) -> None:
    """A line of what goes on, on standard error so that the figures can be piped."""
    print(text, file=sys.stderr, flush=True)


def table(rows: list[list[str]]) -> str:
    """Columns as wide as their contents; the first is text, the others are figures. The first row is the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


class Targets:
    """Figures that are to be at most, or at least, so much."""

    def __init__(self):
        self.results: list[dict] = []

    def at_most(self, name: str, value: float, bound: float) -> tuple[str, str]:
        """Notes a figure; what a table says of it: the bound, and whether it is met."""
        return self._note(name, value, "at_most", "≤", bound, value <= bound)

    def at_least(self, name: str, value: float, bound: float) -> tuple[str, str]:
        return self._note(name, value, "at_least", "≥", bound, value >= bound)

    def _note(self, name: str, value: float, kind: str, sign: str, bound: float, met: bool) -> tuple[str, str]:
        self.results.append({"name": name, "value": value, kind: bound, "met": met})
        return f"{sign} {bound:g}", "met" if met else "MISSED"

    def missed(self) -> bool:
        return not all(result["met"] for result in self.results)


def finish(options: argparse.Namespace, text: str, figures: dict, targets: Targets) -> int:
    """Prints the figures; the exit status."""
    if options.json:
        print(json.dumps(figures | {"targets": targets.results}, indent=2))
    else:
        print(text)
        load = os.getloadavg()[0]
        if load > os.cpu_count() + 0.5:
            print(f"Other work kept this machine busy meanwhile (load {load:.1f} on {os.cpu_count()} CPUs): ratios hold better than times.")
    return 1 if options.check and targets.missed() else 0
