#!/usr/bin/env python3
"""The lab as its callers see it. Each test starts one, whatever this host's own KVM is."""

import os
import pathlib
import select
import signal
import subprocess
import sys
import tempfile
import time
import unittest

LAB = [sys.executable, str(pathlib.Path(__file__).with_name("lab.py")), "--force", "--quiet"]


def lab(*command, options=(), **arguments):
    return subprocess.run([*LAB, *options, "--", *command], capture_output=True, timeout=300, check=False, **arguments)


def process(pid):
    """State and parent of a process, or nothing."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return fields[0], int(fields[1])


def machines_of(pid):
    """The QEMU that a launcher started."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
    return [child for child in pids if (found := process(child)) and found[1] == pid]


def running(pid):
    """Whether it runs still; one that nobody has waited for yet doesn't."""
    found = process(pid)
    return found is not None and found[0] not in "ZX"


class LabTest(unittest.TestCase):
    def test_carries_streams_status_place_and_environment(self):
        script = 'cat; echo "$BOTHY_LAB $BOTHY_X $(pwd)" >&2; echo kept >"$BOTHY_LAB_RESULTS/file"; test -c /dev/kvm && exit 7'
        data = os.urandom(3_000_000)
        with tempfile.TemporaryDirectory() as results:
            done = lab("sh", "-c", script, options=("--results", results), input=data, cwd="/usr/lib",
                       env={**os.environ, "BOTHY_X": "a b"})  # fmt: skip
            self.assertEqual(done.stderr.decode(), "1 a b /usr/lib\n")
            self.assertEqual(done.returncode, 7)
            self.assertEqual(done.stdout, data)
            self.assertEqual((pathlib.Path(results) / "file").read_text(), "kept\n")

    def test_has_what_a_host_has(self):
        checks = [
            "build/lab/kvm_probe --verbose",
            "touch /usr/here",
            "test -w /dev/net/tun && test -c /dev/vhost-net && test -c /dev/vhost-vsock",
            "grep -qw cpu /sys/fs/cgroup/cgroup.controllers && mkdir /sys/fs/cgroup/a && test -e /sys/fs/cgroup/a/cpu.max",
            "ip link show lo | grep -qw UP",
            "ip link add lab0 type bridge && ip tuntap add lab1 mode tap && ip link set lab1 master lab0",
            "modprobe vfio-pci && test -c /dev/vfio/vfio && test -d /sys/kernel/iommu_groups/0",
            "test $(nproc) -ge 2",
            # An emulated CPU 0 is spare.
            "! grep -qw lab.first_cpu=1 /proc/cmdline || grep -q '^Cpus_allowed_list:[[:space:]]*1-' /proc/self/status",
            f"test $(( $(date +%s) - {int(time.time())} )) -lt 200",
        ]
        done = lab("sh", "-ec", "\n".join(f"{check} || {{ echo failed: '{check}'; exit 1; }}" for check in checks),
                   options=["--assignable"])  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout.decode() + done.stderr.decode())
        self.assertFalse(os.path.exists("/usr/here"))

    def test_shows_output_as_it_comes_and_ends_with_its_parent(self):
        parent = subprocess.Popen(["sh", "-c", '"$@" & echo $!; wait', "sh", *LAB, "--", "sh", "-c", "echo begun; sleep 1000"],
                                  stdout=subprocess.PIPE)  # fmt: skip
        launcher = int(parent.stdout.readline())
        self.assertEqual(parent.stdout.readline(), b"begun\n")
        machines = machines_of(launcher)
        self.assertEqual(len(machines), 1)
        parent.kill()
        parent.wait()
        # The pipe ends when the last of them is gone.
        self.assertTrue(select.select([parent.stdout], [], [], 20)[0])
        self.assertEqual(parent.stdout.read(), b"")
        self.assertFalse(running(machines[0]))
        parent.stdout.close()

    def test_ends_at_an_interrupt(self):
        launcher = subprocess.Popen([*LAB, "--", "sh", "-c", "echo begun; sleep 1000"], stdout=subprocess.PIPE)
        self.assertEqual(launcher.stdout.readline(), b"begun\n")
        machines = machines_of(launcher.pid)
        launcher.send_signal(signal.SIGINT)
        self.assertEqual(launcher.wait(20), 130)
        self.assertFalse(running(machines[0]))
        launcher.stdout.close()

    def test_says_why_a_command_or_the_lab_did_not_run(self):
        done = lab("no-such-command")
        self.assertEqual(done.returncode, 127)
        self.assertIn("no-such-command", done.stderr.decode())
        done = lab("true", options=("--memory", "24"))
        self.assertEqual(done.returncode, 125)
        self.assertIn("the lab ended before the command did", done.stderr.decode())

    def test_replaces_one_that_does_not_start(self):
        done = lab("true", options=("--start-timeout", "1"))
        self.assertEqual(done.returncode, 125)
        self.assertEqual(done.stderr.decode().count("the lab did not start in 1 s"), 3)
        self.assertIn("CPU 0 at ", done.stderr.decode())


if __name__ == "__main__":
    unittest.main()
