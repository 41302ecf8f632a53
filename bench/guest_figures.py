"""What a guest measures of itself, VMM by VMM: a script beside KVM starts each in turn, and the guest's console has the figures."""

import shlex
import subprocess

import figures

# 1 processor and 512 MiB, for both.
CPUS = "1"
MEMORY_MIB = "512"


def bothy(options, command_line: str, *devices: str) -> list[str]:
    return [str(options.bothyctl), "run", "--kernel", str(options.kernel), "--initrd", str(options.initrd), "--cpus", CPUS,
            "--memory", f"{MEMORY_MIB}M", *devices, "--cmdline", command_line]  # fmt: skip


def qemu(options, command_line: str, *devices: str) -> list[str]:
    return ["qemu-system-x86_64", "-M", "q35", "-accel", "kvm", "-cpu", "host", "-smp", CPUS, "-m", MEMORY_MIB, "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot", "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console", *devices,
            "-kernel", str(options.kernel), "-initrd", str(options.initrd), "-append", command_line]  # fmt: skip


def boot(label: str, command: list[str]) -> str:
    """The line of the script that says which VMM is next (`label` is one word or several), and starts it."""
    return f"echo vmm {label}; {shlex.join(command)} </dev/null"


def measure(name: str, script: str, line: str, read, expected: set[tuple], rounds: int) -> dict[tuple, list[float]]:
    """Runs the script where KVM is real; the figures of each round, by what they are of.

    `read` is given the label's words and those behind `line`, which begins each figure on a console, and returns what it is of,
    the figure, and how a person is told of it. SystemExit with the last of the output unless all that are `expected` came in each round."""
    command = [figures.ROOT / "tests/lab/lab.py", "--quiet", "--", "sh", "-c", script]
    results: dict[tuple, list[float]] = {}
    label, tail = [], []
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        for text in process.stdout:
            tail = [*tail[-20:], text]
            words = text.split()
            if words[:1] == ["vmm"]:
                label = words[1:]
            if words[:1] == [line]:
                key, figure, told = read(label, words[1:])
                results.setdefault(key, []).append(figure)
                figures.progress(told)
    if process.returncode or set(results) != expected or any(len(figures_of) != rounds for figures_of in results.values()):
        raise SystemExit("".join(tail) + f"{name}: failed with status {process.returncode}")
    return results
