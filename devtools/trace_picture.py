#!/usr/bin/env python3
"""Draws a trace of bothy's (--trace) as an SVG picture: trace_picture.py TRACE OUT.svg [--begin MS] [--end MS]

One row a thread for its spans, nested ones below each other, and rows for calls and other operations
that overlap. Only the standard library.
"""

import argparse
import html
import json
import math
import pathlib

LEFT, WIDTH, ROW, FONT = 130, 860, 20, 11
COLOURS = {"call": "#4c78a8", "startup": "#f58518", "machine": "#e45756", "disk": "#54a24b", "change": "#b279a2"}


def read_events(text: str) -> list[dict]:
    """The events of a whole trace, or of one whose process was killed: the array's end may be missing."""
    text = text.rstrip()
    return json.loads(text if text.endswith("]") else text.rstrip(",") + "]")


def bars(events: list[dict]) -> tuple[dict[str, list[tuple]], float]:
    """Rows by name, each of (begin, end, category, label) in microseconds, and the last end."""
    threads = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    rows: dict[str, list[tuple]] = {}
    begun = {}
    last = max((e["ts"] + e.get("dur", 0) for e in events if "ts" in e), default=0.0)

    def label(event):
        detail = event.get("args", {}).get("detail", "")
        return f"{event['name']} {detail}".strip()

    for event in events:
        if event["ph"] == "X":
            name = threads.get(event["tid"], str(event["tid"]))
            rows.setdefault(name, []).append((event["ts"], event["ts"] + event["dur"], event["cat"], label(event)))
        elif event["ph"] == "b":
            begun[event["cat"], event["id"]] = event
        elif event["ph"] == "e" and (first := begun.pop((event["cat"], event["id"]), None)):
            rows.setdefault(first["cat"] + "s", []).append((first["ts"], event["ts"], first["cat"], label(first)))
    for first in begun.values():  # still under way when the trace ended
        rows.setdefault(first["cat"] + "s", []).append((first["ts"], last, first["cat"], label(first)))
    return rows, last


def lanes(row: list[tuple]) -> list[list[tuple]]:
    """Splits a row into lanes in which nothing overlaps; what begins first and lasts longest comes first."""
    result: list[list[tuple]] = []
    for bar in sorted(row, key=lambda bar: (bar[0], -bar[1])):
        lane = next((lane for lane in result if lane[-1][1] <= bar[0]), None)
        if lane is None:
            result.append(lane := [])
        lane.append(bar)
    return result


def tick(span: float) -> float:
    """A round distance, so that up to ten of them make `span`."""
    step = 1.0
    while span / step > 10:
        step *= 2.5 if str(step)[0] == "2" else 2
    return step


def duration(us: float) -> str:
    return f"{us / 1000:.1f} ms" if us >= 1000 else f"{us:.0f} µs"


def draw(events: list[dict], first: float = 0.0, last: float = math.inf) -> str:
    """What lies between two times in microseconds."""
    rows, ended = bars(events)
    last = min(last, ended)
    rows = {name: kept for name, row in rows.items() if (kept := [bar for bar in row if bar[0] < last and bar[1] > first])}
    scale = WIDTH / max(last - first, 1.0)
    parts, y = [], 30.0
    for name, row in sorted(rows.items(), key=lambda row: min(bar[0] for bar in row[1])):
        parts.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end" font-weight="bold">{html.escape(name)}</text>')
        for lane in lanes(row):
            for begin, end, category, text in lane:
                x = LEFT + (max(begin, first) - first) * scale
                width = max((min(end, last) - max(begin, first)) * scale, 1.0)
                full = html.escape(f"{text}, {duration(end - begin)}")
                colour = COLOURS.get(category, "#9d9d9d")
                parts.append(
                    f'<rect x="{x:.1f}" y="{y:.0f}" width="{width:.1f}" height="{ROW - 3}" fill="{colour}"><title>{full}</title></rect>'
                )
                # About as many characters as the bar has room for.
                room = int(width / (FONT * 0.62))
                if room >= 4:
                    caption = f"{text}, {duration(end - begin)}" if len(text) + 10 <= room else text[:room]
                    parts.append(f'<text x="{x + 3:.1f}" y="{y + 13:.0f}" fill="white">{html.escape(caption)}</text>')
            y += ROW
        y += 6
    grid, at, step = [], 0.0, tick((last - first) / 1000)
    while at * 1000 <= last - first:
        x = LEFT + at * 1000 * scale
        grid.append(f'<line x1="{x:.1f}" y1="22" x2="{x:.1f}" y2="{y:.0f}" stroke="#ddd"/>')
        grid.append(f'<text x="{x:.1f}" y="16" text-anchor="middle" fill="#555">{at:g} ms</text>')
        at += step
    size = f'width="{LEFT + WIDTH + 40}" height="{y + 6:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="{FONT}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *grid, *parts, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=pathlib.Path)
    parser.add_argument("picture", type=pathlib.Path)
    parser.add_argument("--begin", type=float, default=0.0, metavar="MS", help="leave out what ends earlier; 0 of the picture")
    parser.add_argument("--end", type=float, default=math.inf, metavar="MS", help="leave out what begins later")
    options = parser.parse_args()
    picture = draw(read_events(options.trace.read_text(encoding="utf-8")), options.begin * 1000, options.end * 1000)
    options.picture.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
