#!/usr/bin/env python3
"""Runs clang-tidy over our sources: tidy.py BUILD_DIR [--changed]

A file that passed isn't looked at again until it, a header of ours that it includes, its compiler options or
.clang-tidy change: ~/.cache/bothy-tidy remembers, for all clones. Tests get those checks that find mistakes of tests:
each check reads all of GoogleTest's headers again, for every file, which takes twice as long with all of them.
--changed: only files that differ, or whose headers differ, from where this branch left its upstream.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

CLANG_TIDY = "clang-tidy-14"
OURS = ("src/", "cmd/", "tests/", "bench/", "fuzz/")
CHECKS_OF_TESTS = (
    "--checks=-*,bugprone-use-after-move,bugprone-unused-raii,bugprone-string-constructor,performance-for-range-copy,"
    "performance-unnecessary-copy-initialization,performance-unnecessary-value-param,misc-unused-parameters,"
    "misc-unused-using-decls,modernize-use-override,readability-redundant-string-init"
)
ROOT = pathlib.Path(__file__).resolve().parent.parent


def output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def included_files(build: pathlib.Path) -> dict[str, set[str]]:
    """What each source of ours includes that is in this tree, generated files too, from the build's own record."""
    included: dict[str, set[str]] = {}
    source = None
    for line in output("ninja", "-C", str(build), "-t", "deps").splitlines():
        if not line.startswith("    "):
            source = None
            continue
        path = os.path.relpath(os.path.join(build, line.strip()), ROOT)
        if path.startswith("../"):
            continue
        if source is None:
            source = path
        included.setdefault(source, set()).add(path)
    return included


def changed_files() -> set[str]:
    for upstream in ("@{upstream}", "origin/main", "main"):
        found = subprocess.run(["git", "merge-base", "HEAD", upstream], cwd=ROOT, check=False, capture_output=True, text=True)
        if found.returncode == 0:
            names = output("git", "diff", "--name-only", found.stdout.strip())
            return set(names.split("\n") + output("git", "ls-files", "--others", "--exclude-standard").split("\n"))
    raise SystemExit("tidy: --changed: there is no upstream branch to compare with")


def new_diagnostics(text: str, shown: set[str]) -> str:
    """The diagnostics, each with its notes, that an earlier file's report didn't have: many include one header."""
    new = []
    for diagnostic in re.split(r"^(?=\S+:\d+:\d+: (?:error|warning):)", text, flags=re.MULTILINE):
        if diagnostic not in shown:
            shown.add(diagnostic)
            new.append(diagnostic)
    return "".join(new)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("build", type=pathlib.Path, help="a built preset's directory")
    parser.add_argument("--changed", action="store_true")
    options = parser.parse_args()
    build = options.build.resolve()
    passed = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "bothy-tidy")
    passed.mkdir(parents=True, exist_ok=True)

    included = included_files(build)
    changed = changed_files() if options.changed else None
    settings = output(CLANG_TIDY, "--version") + (ROOT / ".clang-tidy").read_text()
    work: dict[str, tuple[str, list[str]]] = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        source = os.path.relpath(os.path.join(entry["directory"], entry["file"]), ROOT)
        if not source.startswith(OURS) or source in work:
            continue
        files = sorted(included.get(source, {source}))
        if changed is not None and not changed.intersection(files):
            continue
        test = re.search(r"_(test|fuzz)\.cc$", source) or source.startswith(("tests/", "bench/"))
        arguments = [CHECKS_OF_TESTS] if test else []
        command = entry["command"].replace(str(ROOT), "")  # the same in every clone
        digest = hashlib.sha256((settings + command + str(arguments)).encode())
        for file in files:
            digest.update(file.encode() + b"\0" + hashlib.sha256((ROOT / file).read_bytes()).digest())
        if not (passed / digest.hexdigest()).exists():
            work[source] = (digest.hexdigest(), arguments)

    def check(source: str) -> tuple[str, subprocess.CompletedProcess]:
        command = [CLANG_TIDY, "-p", str(build), "--quiet", "--extra-arg=-Wno-unknown-warning-option"]
        command += [*work[source][1], source]
        return source, subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)

    failed = []
    shown: set[str] = set()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, (source, done) in enumerate(pool.map(check, work), start=1):
            print(f"[{number}/{len(work)}] {source}", flush=True)
            if done.returncode == 0:
                (passed / work[source][0]).touch()
            else:
                failed.append(source)
                print(done.stdout and new_diagnostics(done.stdout, shown) or done.stderr, flush=True)
    if failed:
        print(f"tidy: {len(failed)} of {len(work)} files: {' '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
