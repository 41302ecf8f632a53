"""Finds out whether an emulated CPU of the lab is stuck for good.

QEMU's emulation of SVM now and then leaves the first CPU with its global interrupt flag clear after a guest's exit, although the
lab's KVM has executed STGI (docs/lab.md has the cause, and why no guest runs there any more). The lab's kernel goes on until it
has nothing to do, and then that CPU sleeps for ever: it is halted with interrupts enabled, an interrupt above its priority is
pending in its local APIC, and it doesn't take it. No CPU is ever in that state for longer than a moment otherwise, so it proves
that the emulator is at fault, not what runs in the lab.
"""

import json
import re
import socket
import time

# A healthy CPU takes a pending interrupt within microseconds; a CPU of a loaded machine gets its turn within this.
OBSERVATIONS = 5
SECONDS_BETWEEN = 1.0
MONITOR_SECONDS = 30.0

INTERRUPTS_ENABLED = 1 << 9  # of RFLAGS


def sleeping_cpus(registers: str) -> list[int]:
    """Those that are halted with interrupts enabled, from the monitor's "info registers -a"."""
    sleeping = []
    for number, text in re.findall(r"CPU#(\d+)\s(.*?)(?=CPU#|\Z)", registers, re.DOTALL):
        flags = re.search(r"\bRFL=([0-9a-f]+)", text)
        halted = re.search(r"\bHLT=([01])", text)
        if flags and halted and int(flags[1], 16) & INTERRUPTS_ENABLED and halted[1] == "1":
            sleeping.append(int(number))
    return sleeping


def positions(registers: str) -> list[str]:
    """Where each CPU is, from the monitor's "info registers -a"."""
    found = []
    for number, text in re.findall(r"CPU#(\d+)\s(.*?)(?=CPU#|\Z)", registers, re.DOTALL):
        place = re.search(r"\b[RE]IP=([0-9a-f]+)", text)
        halted = re.search(r"\bHLT=([01])", text)
        if place and halted:
            found.append(f"CPU {number} at {place[1]}{', halted' if halted[1] == '1' else ''}")
    return found


def pending_interrupt(lapic: str) -> int | None:
    """The highest vector that the CPU would have to take now, from the monitor's "info lapic"."""
    requested = re.search(r"^IRR[\t ]+(.*)$", lapic, re.MULTILINE)
    priority = re.search(r"\bPPR 0x([0-9a-f]+)", lapic)
    # "31(level) 236 ", or "(none)"
    vectors = [int(number) for number in re.findall(r"\d+", requested[1])] if requested else []
    if not vectors or not priority:
        return None
    vector = max(vectors)
    return vector if vector >> 4 > int(priority[1], 16) >> 4 else None


class Monitor:
    """QEMU's machine protocol on a connected socket."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self.received = b""
        self.commands = 0

    def ask(self, command: str) -> str:
        """What the human monitor prints; "" when QEMU doesn't answer (it may be ending)."""
        self.connection.settimeout(MONITOR_SECONDS)
        try:
            if self.commands == 0:
                self._execute({"execute": "qmp_capabilities"})
            return str(self._execute({"execute": "human-monitor-command", "arguments": {"command-line": command}}))
        except (OSError, ValueError):
            return ""

    def _execute(self, command: dict) -> object:
        self.commands += 1
        number = self.commands
        self.connection.sendall(json.dumps({**command, "id": number}).encode() + b"\n")
        while True:
            while b"\n" not in self.received:
                chunk = self.connection.recv(65536)
                if not chunk:
                    raise ConnectionResetError
                self.received += chunk
            line, self.received = self.received.split(b"\n", 1)
            message = json.loads(line)
            if message.get("id") != number:
                continue  # a greeting, an event, or an answer that came too late
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise ValueError(message["error"])


def where_cpus_are(monitor: Monitor) -> list[str]:
    """A line each."""
    return positions(monitor.ask("info registers -a")) or ["the emulator's monitor doesn't answer"]


def find_stuck_cpu(monitor: Monitor) -> str | None:
    """Says which CPU is stuck, after watching for some seconds, or nothing."""
    suspects: dict[int, int] | None = None
    for observation in range(OBSERVATIONS):
        if observation:
            time.sleep(SECONDS_BETWEEN)
        now = {}
        for cpu in sleeping_cpus(monitor.ask("info registers -a")):
            vector = pending_interrupt(monitor.ask(f"info lapic {cpu}"))
            if vector is not None:
                now[cpu] = vector
        suspects = now if suspects is None else {cpu: now[cpu] for cpu in suspects if cpu in now}
        if not suspects:
            return None
    cpu, vector = next(iter(suspects.items()))
    return f"emulated CPU {cpu} sleeps with interrupts enabled and never takes pending interrupt {vector} (docs/lab.md)"
