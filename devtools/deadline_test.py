"""python3 -m unittest discover -s devtools -p '*_test.py'"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

DEADLINE = pathlib.Path(__file__).parent / "deadline.py"


def run(seconds, *command):
    return subprocess.run(
        [sys.executable, DEADLINE, str(seconds), "--", *command], capture_output=True, text=True, check=False
    )


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class DeadlineTest(unittest.TestCase):
    def test_passes_the_status_and_the_output_on(self):
        result = run(60, "sh", "-c", "echo out; echo err >&2; exit 7")
        self.assertEqual((result.returncode, result.stdout, result.stderr), (7, "out\n", "err\n"))

    def test_tells_a_death_by_a_signal(self):
        self.assertEqual(run(60, "sh", "-c", "kill -TERM $$").returncode, 128 + 15)

    def test_leaves_signals_as_they_are_by_default(self):
        self.assertEqual(run(60, "sh", "-c", "kill -PIPE $$").returncode, 128 + 13)

    def test_ends_the_command_when_it_is_ended_itself(self):
        process = subprocess.Popen([sys.executable, DEADLINE, "60", "--", "sh", "-c", "echo $$; exec sleep 1000"], stdout=subprocess.PIPE)
        command = int(process.stdout.readline())
        process.terminate()
        self.assertEqual(process.wait(), 128 + 15)
        self.assertFalse(alive(command))
        process.stdout.close()

    def test_says_what_was_going_on_and_ends_it(self):
        with tempfile.TemporaryDirectory() as folder:
            # A grandchild that is orphaned and in a session of its own is one of the command's all the same.
            script = f"(setsid sleep 1000 & echo $! >{folder}/orphan); sleep 1001"
            result = run(5, "sh", "-c", script)
            orphan = int((pathlib.Path(folder) / "orphan").read_text(encoding="utf-8"))
        self.assertEqual(result.returncode, 124)
        self.assertIn("did not end in 5 s", result.stderr)
        self.assertEqual(result.stderr.count(": sleep, child of "), 2, result.stderr)
        self.assertFalse(alive(orphan))

    def test_refuses_other_command_lines(self):
        for arguments in ([], ["5"], ["5", "--"], ["soon", "--", "true"], ["5", "true", "now"]):
            result = subprocess.run([sys.executable, DEADLINE, *arguments], capture_output=True, text=True, check=False)
            self.assertEqual(result.returncode, 2, arguments)


if __name__ == "__main__":
    unittest.main()
