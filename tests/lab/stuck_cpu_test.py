"""The watch on emulated CPUs, with a QEMU that only pretends: python3 stuck_cpu_test.py"""

import json
import socket
import threading
import unittest
from unittest import mock

import stuck_cpu

CPU = "CPU#{number}\nRAX=0 RBX=0\nRIP=ffffffff81a592eb RFL={flags:08x} [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT={halted}\nEFER=1d01\n"
LAPIC = "dumping local APIC state for CPU {number}\nISR\t (none)\nIRR\t {requested}\nAPR 0x00 TPR 0x10 DFR 0x0f LDR 0x01 PPR 0x{priority:02x}\n"


class FakeQemu(threading.Thread):
    """Answers the monitor's questions; each CPU is (flags, halted, IRR, PPR), one list an observation."""

    def __init__(self, observations):
        super().__init__(daemon=True)
        self.observations = observations
        self.ours, self.theirs = socket.socketpair()

    def run(self):
        lines = self.theirs.makefile("rwb")
        lines.write(b'{"QMP": {}}\n')
        seen = -1
        for line in lines:
            request = json.loads(line)
            answer = {}
            if request["execute"] == "human-monitor-command":
                words = request["arguments"]["command-line"].split()
                if words[1] == "registers":
                    seen += 1
                cpus = self.observations[min(seen, len(self.observations) - 1)]
                if words[1] == "registers":
                    answer = "\n".join(CPU.format(number=i, flags=cpu[0], halted=cpu[1]) for i, cpu in enumerate(cpus))
                else:
                    cpu = cpus[int(words[2])]
                    answer = LAPIC.format(number=words[2], requested=cpu[2], priority=cpu[3])
            lines.write(b'{"event": "NICE"}\n' + json.dumps({"return": answer, "id": request["id"]}).encode() + b"\n")
            lines.flush()


def where(*cpus):
    qemu = FakeQemu([cpus])
    qemu.start()
    with qemu.ours, qemu.theirs:
        found = stuck_cpu.where_cpus_are(stuck_cpu.Monitor(qemu.ours))
        qemu.ours.shutdown(socket.SHUT_RDWR)
        qemu.join()
    return found


def find(*observations):
    qemu = FakeQemu(observations)
    qemu.start()
    with mock.patch.object(stuck_cpu.time, "sleep"), qemu.ours, qemu.theirs:
        found = stuck_cpu.find_stuck_cpu(stuck_cpu.Monitor(qemu.ours))
        qemu.ours.shutdown(socket.SHUT_RDWR)
        qemu.join()
        return found


STUCK = (0x246, 1, "31(level) 236 251 ", 0x10)
IDLE = (0x246, 1, "(none)", 0x10)


class StuckCpuTest(unittest.TestCase):
    def test_finds_a_cpu_that_sleeps_through_its_interrupts(self):
        self.assertIn("emulated CPU 1 sleeps with interrupts enabled and never takes pending interrupt 251", find([IDLE, STUCK]))

    def test_leaves_healthy_cpus_alone(self):
        for cpu in (
            IDLE,
            (0x246, 0, "236 ", 0x10),  # awake
            (0x046, 1, "236 ", 0x10),  # interrupts disabled
            (0x246, 1, "31 ", 0x10),  # below its priority
        ):
            self.assertIsNone(find([cpu, IDLE]), cpu)

    def test_wants_to_see_it_for_long(self):
        self.assertIsNone(find([STUCK], [STUCK], [IDLE], [STUCK]))

    def test_has_nothing_to_say_of_a_qemu_that_is_gone(self):
        ours, theirs = socket.socketpair()
        theirs.close()
        self.assertIsNone(stuck_cpu.find_stuck_cpu(stuck_cpu.Monitor(ours)))
        self.assertEqual(stuck_cpu.where_cpus_are(stuck_cpu.Monitor(ours)), ["the emulator's monitor doesn't answer"])
        ours.close()

    def test_says_where_cpus_are(self):
        self.assertEqual(where(IDLE, (0x046, 0, "(none)", 0x10)), ["CPU 0 at ffffffff81a592eb, halted", "CPU 1 at ffffffff81a592eb"])


if __name__ == "__main__":
    unittest.main()
