#!/usr/bin/env python3
"""Runs a command in the lab: a host with KVM, on any machine. docs/lab.md says what that is.

    lab.py [options] [-- COMMAND [ARGUMENT...]]

Without a command: a shell. The exit status is the command's; 125 when the lab itself failed.
"""

import argparse
import collections
import ctypes
import os
import pathlib
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import tty

import stuck_cpu

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAB = ROOT / "build/lab"

LAB_FAILED = 125  # as docker run and timeout have it
# Without a word from the lab for so long, its emulated CPUs are looked at.
SILENCE_SECONDS = 15.0
# Labs that may fail to start before that is given up.
MOST_STARTS = 3
# Of the CPUs that are emulated so many run no guests; _arguments says why.
SPARE_CPUS = 1
# Without the user's own start-up files, which take an emulated CPU half a minute when they are rich.
SHELL = ["bash", "--norc"]
HEADER = struct.Struct("<cI")
CHUNK = 64 * 1024

# What a command in the lab may know of its caller's environment, beside BOTHY_*.
INHERITED = {"CI", "COLORTERM", "HOME", "LANG", "LOGNAME", "NO_COLOR", "PATH", "TERM", "USER"}
INHERITED_PREFIXES = ("BOTHY_", "LC_", "GTEST_", "CTEST_", "ASAN_", "UBSAN_", "TSAN_")


class LabError(Exception):
    """The lab failed, not the command in it."""


class LabStuck(LabError):
    """The emulator failed (stuck_cpu.py)."""


class LabNotStarted(LabStuck):
    """It failed before the command began: nothing is lost when another lab takes its place."""


def die_with_parent(sig: int) -> None:
    """Has the kernel send `sig` to this process when its parent ends."""
    pr_set_pdeathsig = 1
    parent = os.getppid()
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, sig)
    if os.getppid() != parent:
        os.kill(os.getpid(), sig)


def hardware_kvm() -> bool:
    return subprocess.run([LAB / "kvm_probe"], stdin=subprocess.DEVNULL, check=False).returncode == 0


def nesting_allowed() -> bool:
    for module in ("kvm_amd", "kvm_intel"):
        try:
            if pathlib.Path(f"/sys/module/{module}/parameters/nested").read_text().strip() in ("1", "Y"):
                return True
        except OSError:
            pass
    return False


def default_memory() -> int:
    """MiB: enough for 6 GiB guests that don't touch it all, and never more than two thirds of this machine's."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return min(8192, total * 2 // 3)


def prepare(what: str = "all") -> None:
    done = subprocess.run([ROOT / "tests/lab/prepare.sh", what], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if done.returncode:
        raise LabError("preparing it failed, see above")


def window_size() -> str:
    size = shutil.get_terminal_size()
    return f"{size.lines} {size.columns}"


def inherited_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }


def request(command: list[str], terminal: bool, results: pathlib.Path) -> bytes:
    """The frame that says what to run; lab_init.cc has its format."""
    environment = inherited_environment()
    environment |= {"BOTHY_LAB": "1", "BOTHY_LAB_RESULTS": str(results)}
    environment.setdefault("HOME", "/root")
    environment.setdefault("PS1", r"lab:\w\$ ")
    fields = [window_size() if terminal else "", os.getcwd(), str(len(environment))]
    fields += [f"{name}={value}" for name, value in environment.items()]
    fields += command
    return frame(b"R", b"".join(os.fsencode(field) + b"\0" for field in fields))


def frame(kind: bytes, payload: bytes) -> bytes:
    return HEADER.pack(kind, len(payload)) + payload


class Lab:
    """One running lab: a QEMU that ends with this process, however this process ends."""

    def __init__(self, options: argparse.Namespace, results: pathlib.Path):
        self.channel, channel = socket.socketpair()
        self.console, console = socket.socketpair()
        monitor, monitor_of_qemu = socket.socketpair()
        self.monitor = stuck_cpu.Monitor(monitor)
        self.console_tail: collections.deque[bytes] = collections.deque(maxlen=256)
        self.started = time.monotonic()
        fds = (channel.fileno(), console.fileno(), monitor_of_qemu.fileno())
        self.qemu = subprocess.Popen(
            self._arguments(options, results, *fds),
            stdin=subprocess.DEVNULL,
            pass_fds=fds,
            # The terminal's Ctrl-C is for this process, which then ends QEMU.
            preexec_fn=lambda: (os.setpgid(0, 0), die_with_parent(signal.SIGKILL)),
        )
        channel.close()
        console.close()
        monitor_of_qemu.close()

    @staticmethod
    def _arguments(
        options: argparse.Namespace, results: pathlib.Path, channel: int, console: int, monitor: int
    ) -> list[str]:
        nested = hardware_kvm() and nesting_allowed()
        kernel = ["console=ttyS0", "quiet", "panic=-1", "mitigations=off", "cryptomgr.notests",
                  f"lab.results={results}",
                  f"lab.modules={LAB / 'kernel/lib/modules'}"]
        machine = ["q35"]
        cpus = options.cpus
        devices = ["-device", "virtio-serial-pci,max_ports=2"]
        if nested:
            accelerator, cpu = "kvm", "host"
        else:
            # An emulated SVM doesn't intercept XSETBV: with XSAVE, guests in the lab would run with the lab's XCR0 instead of
            # their own and warn of it at length. Without it, nothing that needs it either. And no ERMS: kernels would clear and
            # copy pages by rep stosb and movsb, which TCG does byte by byte. Without ERMS no FSRM, which kernels take it for.
            accelerator, cpu = "tcg,thread=multi", "max,+svm,+npt,-xsave,-avx,-avx2,-f16c,-fma,-vaes,-mpx,-pku,-erms,-fsrm"
            # Emulated TSCs agree, and nothing else is as cheap to read.
            kernel += ["tsc=reliable", "clocksource=tsc", "no_timer_check"]
            # Whichever CPU loads x87 state (each switch of tasks does) clears a bit of the first CPU's HFLAGS2, and not atomically:
            # what that CPU changes there meanwhile is undone, and that is the global interrupt flag and nested paging, at every
            # entry of a guest and every exit (cpu_clear_ignne in QEMU's fpu_helper.c). So no guest ever runs on it.
            kernel.append(f"lab.first_cpu={SPARE_CPUS}")
            cpus += SPARE_CPUS
        if options.assignable:
            machine.append("kernel-irqchip=split")
            kernel += ["intel_iommu=on", "iommu=pt"]
            devices = ["-device", "intel-iommu,intremap=on,caching-mode=on", *devices,
                       "-device", "e1000e,romfile=",
                       "-device", "pcie-root-port,id=assigned",
                       "-blockdev", "driver=null-co,node-name=null,size=1073741824,read-zeroes=on",
                       "-device", "nvme,bus=assigned,serial=lab,drive=null"]
        return [
            str(LAB / "emulator/bin/qemu-system-x86_64"), "-M", ",".join(machine), "-accel", accelerator, "-cpu", cpu,
            "-smp", str(cpus), "-m", str(options.memory), "-nodefaults", "-display", "none", "-no-reboot",
            "-kernel", str(LAB / "vmlinux"), "-initrd", str(LAB / "initrd"), "-append", " ".join(kernel),
            "-chardev", f"socket,id=console,fd={console}", "-serial", "chardev:console",
            "-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control",
            *devices,
            "-chardev", f"socket,id=channel,fd={channel}", "-device", "virtserialport,nr=1,chardev=channel",
            "-fsdev", "local,id=root,path=/,security_model=none,multidevs=remap,readonly=on",
            "-device", "virtio-9p-pci,fsdev=root,mount_tag=hostroot",
            "-fsdev", f"local,id=results,path={results},security_model=none,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=results,mount_tag=results",
            "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
        ]  # fmt: skip

    def end(self) -> None:
        self.qemu.kill()
        self.qemu.wait()

    def tail(self) -> list[str]:
        """The last lines of its console."""
        self.console.setblocking(False)
        try:
            while chunk := self.console.recv(CHUNK):
                self.console_tail.append(chunk)
        except BlockingIOError:
            pass
        return b"".join(self.console_tail).decode(errors="replace").replace("\r", "").strip().splitlines()[-30:]

    def failure(self) -> LabError:
        """What to say when the lab went away without an exit status."""
        status = self.qemu.poll()
        return LabError("\n".join([*self.tail(), f"the lab ended before the command did (qemu: {status})"]))

    def not_started(self, seconds: int) -> LabNotStarted:
        """What to say when it takes too long to start, with what tells why."""
        where = stuck_cpu.where_cpus_are(self.monitor)
        return LabNotStarted("\n".join([*self.tail(), *where, f"the lab did not start in {seconds} s"]))


class Session:
    """Carries a command's input and output between this process and the lab until the command ends.

    Nothing here waits for the lab to take input: it may itself be waiting for its output to be read.
    """

    def __init__(self, lab: Lab, options: argparse.Namespace, first: bytes, terminal: bool):
        self.lab = lab
        self.options = options
        self.terminal = terminal
        self.received = bytearray()
        self.unsent = bytearray(first)
        self.resized, wakeup = socket.socketpair()
        wakeup.setblocking(False)
        self.wakeup = wakeup
        self.began = False  # the lab runs; until then all input stays where it is
        self.input_fd: int | None = 0
        self.input_waits = False  # in the selector; a plain file never does, it is always ready
        self.timeline: list[str] = []
        self.starting = StartIndicator(options.quiet)
        self.silent_since = time.monotonic()

    def run(self) -> int:
        self.lab.channel.setblocking(False)
        with selectors.DefaultSelector() as ready:
            self.ready = ready
            ready.register(self.lab.channel, selectors.EVENT_READ)
            ready.register(self.lab.console, selectors.EVENT_READ)
            ready.register(self.resized, selectors.EVENT_READ)
            while True:
                self._send_more()
                happened = ready.select(self._patience())
                if happened:
                    self.silent_since = time.monotonic()
                for key, events in happened:
                    if key.fileobj is self.lab.console:
                        self._console()
                    elif key.fileobj is self.lab.channel and events & selectors.EVENT_READ:
                        status = self._channel()
                        if status is not None:
                            return status
                    elif key.fileobj is self.resized:
                        self.resized.recv(CHUNK)
                        self.unsent += frame(b"W", window_size().encode())
                    elif key.fd == self.input_fd:
                        self._input()

    def _patience(self) -> float:
        """How long to wait for events; looks at the emulated CPUs when there were none for long."""
        if self.options.timeout and time.monotonic() >= self.lab.started + self.options.timeout:
            if found := stuck_cpu.find_stuck_cpu(self.lab.monitor):
                raise LabStuck(found)
            raise LabError(f"the command did not end in {self.options.timeout} s")
        if time.monotonic() >= self.silent_since + SILENCE_SECONDS:
            if found := stuck_cpu.find_stuck_cpu(self.lab.monitor):
                raise LabStuck(found)
            self.silent_since = time.monotonic()
        left = max(0.0, self.silent_since + SILENCE_SECONDS - time.monotonic())
        if not self.began:
            left_to_start = self.lab.started + self.options.start_timeout - time.monotonic()
            if left_to_start <= 0:
                raise self.lab.not_started(self.options.start_timeout)
            left = min(left, left_to_start)
        if self.options.timeout:
            left = min(left, max(0.0, self.lab.started + self.options.timeout - time.monotonic()))
        starting = self.starting.wait()
        return left if starting is None else min(left, starting)

    def _follow_window(self) -> None:
        signal.signal(signal.SIGWINCH, lambda *_: None)
        signal.set_wakeup_fd(self.wakeup.fileno(), warn_on_full_buffer=False)

    def _send_more(self) -> None:
        while True:
            while self.unsent:
                try:
                    del self.unsent[:self.lab.channel.send(self.unsent)]
                except BlockingIOError:
                    break
                except BrokenPipeError:
                    self.unsent.clear()
            if self.unsent or self.input_fd is None or not self.began:
                break
            if self._input_must_wait():
                break
            self._input()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.unsent else 0)
        self.ready.modify(self.lab.channel, events)
        if self.input_waits and self.unsent:
            self.ready.unregister(self.input_fd)
            self.input_waits = False

    def _input_must_wait(self) -> bool:
        if not self.input_waits:
            try:
                self.ready.register(self.input_fd, selectors.EVENT_READ)
            except PermissionError:  # a plain file, which epoll won't have
                return False
            except (ValueError, OSError):  # closed
                self._input()
                return True
            self.input_waits = True
        return True

    def _input(self) -> None:
        try:
            chunk = os.read(self.input_fd, CHUNK)
        except OSError:
            chunk = b""
        self.unsent += frame(b"I", chunk)
        if not chunk:
            if self.input_waits:
                self.ready.unregister(self.input_fd)
                self.input_waits = False
            self.input_fd = None

    def _console(self) -> None:
        chunk = self.lab.console.recv(CHUNK)
        if not chunk:
            self.ready.unregister(self.lab.console)
            return
        self.lab.console_tail.append(chunk)
        if self.options.console:
            write_all(2, chunk)

    def _channel(self) -> int | None:
        try:
            chunk = self.lab.channel.recv(CHUNK)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            self.starting.done()
            self.lab.qemu.wait()
            raise self.lab.failure()
        self.received += chunk
        while len(self.received) >= HEADER.size:
            kind, size = HEADER.unpack_from(self.received)
            end = HEADER.size + size
            if len(self.received) < end:
                break
            payload = bytes(self.received[HEADER.size:end])
            del self.received[:end]
            if kind == b"O":
                write_all(1, payload)
            elif kind == b"E":
                write_all(2, payload)
            elif kind == b"B":
                self.starting.done()
                if payload.startswith(b"ready"):
                    self.began = True
                    self.unsent += frame(b"T", str(time.time_ns()).encode())
                    if self.terminal:  # until now Ctrl-C was for this process, from now on it is for the command
                        self._follow_window()
                        tty.setraw(0)
                self.timeline.append(f"{time.monotonic() - self.lab.started:6.2f} s  {payload.decode()}")
            elif kind == b"X":
                return int(payload)
        return None


class StartIndicator:
    """Says that the lab is starting, once that has taken two seconds: a line that is updated on a terminal."""

    def __init__(self, quiet: bool):
        self.active = not quiet
        self.terminal = sys.stderr.isatty()
        self.started = time.monotonic()
        self.next = self.started + 2

    def wait(self) -> float | None:
        """How long the caller may wait for events before it asks again."""
        if not self.active:
            return None
        now = time.monotonic()
        if now >= self.next:
            if not self.terminal:
                print("lab: starting", file=sys.stderr, flush=True)
                self.active = False
                return None
            print(f"\r\x1b[Klab: starting, {now - self.started:.0f} s", end="", file=sys.stderr, flush=True)
            self.next = now + 1
        return self.next - now

    def done(self) -> None:
        if self.active and self.terminal and time.monotonic() >= self.started + 2:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self.active = False


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data):]


def run_in_lab(options: argparse.Namespace) -> int:
    prepare()
    terminal = all(os.isatty(fd) for fd in (0, 1, 2))
    results = pathlib.Path(options.results).resolve()
    results.mkdir(parents=True, exist_ok=True)
    command = options.command or SHELL
    if not options.command and terminal:
        print("A shell in the lab; leave it with exit or Ctrl-D.", file=sys.stderr)
    lab = Lab(options, results)
    session = Session(lab, options, request(command, terminal, results), terminal)
    saved = termios.tcgetattr(0) if terminal else None
    try:
        status = session.run()
    finally:
        lab.end()
        signal.set_wakeup_fd(-1)
        if saved:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
    if options.timeline:
        print("\n".join(session.timeline), file=sys.stderr)
    return status


def run_in_labs(options: argparse.Namespace) -> int:
    """In one lab, or in a further one whenever the emulator of the last has failed."""
    runs = starts = 1
    while True:
        try:
            return run_in_lab(options)
        except LabNotStarted as error:
            if starts == MOST_STARTS:
                raise
            starts += 1
            print(f"lab: {error}; starting another", file=sys.stderr, flush=True)
        except LabStuck as error:
            if runs == options.labs:
                raise
            runs += 1
            print(f"\nlab: {error}; the command runs again, in another lab", file=sys.stderr, flush=True)


def run_here(options: argparse.Namespace) -> int:
    """The command itself, on a host whose KVM is real (or already in the lab)."""
    results = pathlib.Path(options.results).resolve()
    results.mkdir(parents=True, exist_ok=True)
    command = options.command or SHELL
    os.environ["BOTHY_LAB_RESULTS"] = str(results)
    os.execvp(command[0], command)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev lab", description=__doc__.split("\n", maxsplit=1)[0], epilog="docs/lab.md has more.")
    parser.add_argument("--force", action="store_true", help="use the lab even where this host's own KVM is real")
    parser.add_argument("--probe", action="store_true", help="only say whether this host's KVM is real (exit status 0)")
    parser.add_argument("--results", default=os.environ.get("BOTHY_LAB_RESULTS", str(LAB / "results")), metavar="DIR",
                        help="folder that the command may write to (default: %(default)s)")
    parser.add_argument("--cpus", type=int, default=max(2, min(4, os.cpu_count() or 2)), help="default: %(default)s")
    parser.add_argument("--memory", type=int, default=default_memory(), metavar="MIB", help="default: %(default)s")
    parser.add_argument("--assignable", action="store_true", help="an IOMMU, a spare e1000e and an NVMe drive to assign")
    parser.add_argument("--labs", type=int, choices=range(1, 10), default=1, metavar="N",
                        help="run the command again when a lab's emulated CPUs fail, in at most N labs (default: 1); for commands without input")
    parser.add_argument("--start-timeout", type=int, default=100, metavar="SECONDS",
                        help="a lab that takes longer to start is replaced by another, twice (default: %(default)s)")
    parser.add_argument("--timeout", type=int, metavar="SECONDS", help="give the command up after so long, with exit status 125")
    parser.add_argument("--console", action="store_true", help="show the lab's kernel log on standard error")
    parser.add_argument("--quiet", action="store_true", help="don't say that the lab is starting")
    parser.add_argument("--timeline", action="store_true", help="say how long the lab took to start")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="after --; none: a shell")
    options = parser.parse_args()

    try:
        os.fstat(0)
    except OSError:
        os.open(os.devnull, os.O_RDONLY)  # it was closed; no other file may become it
    die_with_parent(signal.SIGTERM)
    for sig in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, lambda number, _: sys.exit(128 + number))
    try:
        if os.environ.get("BOTHY_LAB"):
            return run_here(options)
        prepare("probe")
        real = hardware_kvm()
        if options.probe:
            print("real" if real else "not real")
            return 0 if real else 1
        if real and not options.force:
            return run_here(options)
        return run_in_labs(options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return LAB_FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # nobody reads the output any more
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
