#!/usr/bin/env python3
"""Runs a command that must end: deadline.py SECONDS -- COMMAND [ARGUMENT...]

The exit status is the command's (128 + signal for a death by one), or 124 when the time is up. Then this says what every
process that the command started was doing, and kills them. A process that not even SIGKILL ends, because it is stuck in
the kernel, isn't waited for: whoever waits for it would hang with it.
"""

import ctypes
import os
import pathlib
import signal
import sys
import time

TIME_IS_UP = 124  # as timeout(1) has it
PR_SET_CHILD_SUBREAPER = 36
# How long the killed may take to go.
GRACE_SECONDS = 10


def stat_fields(pid: int) -> list[str] | None:
    """The state, the parent's pid and so on (proc(5)), or None when the process is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def descendants(root: int) -> list[int]:
    """Those of `root`, parents before their children."""
    children: dict[int, list[int]] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := stat_fields(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = []
    pending = [root]
    while pending:
        for pid in sorted(children.get(pending.pop(), [])):
            found.append(pid)
            pending.append(pid)
    return found


def describe(pid: int) -> list[str]:
    """A line for the process, and one for each of its threads: state, what it waits for in the kernel, its name."""
    folder = pathlib.Path(f"/proc/{pid}")

    def read(path: pathlib.Path) -> str:
        try:
            return path.read_text(encoding="utf-8", errors="replace").replace("\0", " ").strip()
        except OSError:
            return "?"

    # Not its command line: reading that waits for a process that is stuck with its memory map locked.
    lines = [f"{pid}: {read(folder / 'comm')}, child of {(stat_fields(pid) or '??')[1]}"]
    try:
        tasks = sorted((folder / "task").iterdir())
    except OSError:
        tasks = []
    for task in tasks:
        state = (read(task / "stat").rpartition(") ")[2] or "?")[0]
        lines.append(f"  {task.name} {state} {read(task / 'wchan')} {read(task / 'comm')}")
        lines += [f"    {line}" for line in read(task / "stack").splitlines() if line != "?"]
    return lines


def reap(command: int) -> int | None:
    """Takes the statuses of all that has ended: the command's exit status, if it has."""
    status = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            if ended[0] == command:
                code = os.waitstatus_to_exitcode(ended[1])
                status = code if code >= 0 else 128 - code
    except ChildProcessError:
        pass
    return status


def end(command: int) -> None:
    """Kills the command and all that it started, as far as that is possible."""
    deadline = time.monotonic() + GRACE_SECONDS
    while left := descendants(os.getpid()):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if time.monotonic() > deadline:
            print(f"not even SIGKILL ends {' '.join(map(str, left))}", file=sys.stderr)
            return
        signal.sigtimedwait({signal.SIGCHLD}, 0.1)
        reap(command)


def start(command: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored_by_python, signal.SIG_DFL)
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)
    return pid


def main(arguments: list[str]) -> int:
    if len(arguments) < 3 or arguments[1] != "--" or not arguments[0].isdigit():
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    seconds = int(arguments[0])
    # What outlives its parent becomes a child of this process, and is found.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    # The command gets the terminal's Ctrl-C, too, and ends by it.
    signal.signal(signal.SIGINT, lambda *_: None)
    # Whoever started this may have ignored it, which exec(2) keeps.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    deadline = time.monotonic() + seconds
    command = start(arguments[2:])

    def end_too(number: int, _: object) -> None:
        end(command)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end_too)
    signal.signal(signal.SIGHUP, end_too)
    while (status := reap(command)) is None:
        if (left := deadline - time.monotonic()) <= 0:
            print(f"\n{arguments[2]} did not end in {seconds} s.", file=sys.stderr)
            print("Its processes, and for each thread its id, state, what it waits for, its name:", file=sys.stderr)
            for pid in descendants(os.getpid()):
                print("\n".join(describe(pid)), file=sys.stderr)
            end(command)
            return TIME_IS_UP
        signal.sigtimedwait({signal.SIGCHLD}, left)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
