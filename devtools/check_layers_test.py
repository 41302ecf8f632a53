"""python3 -m unittest discover -s devtools -p '*_test.py'"""

import pathlib
import re
import tempfile
import unittest

import check_layers


def lines(path, text):
    return [number for number, _ in check_layers.breaches(path, text)]


class CheckLayersTest(unittest.TestCase):
    def test_allows_what_stands_above_and_the_library_itself(self):
        text = '#include "support/check.h"\n#include "memory/layout.h"\n#include "absl/status/status.h"\n#include <vector>\n'
        self.assertEqual(lines("src/memory/guest_memory.cc", text), [])

    def test_refuses_what_stands_below(self):
        self.assertEqual(lines("src/memory/layout.h", '\n#include "pci/bus.h"\n'), [2])

    def test_refuses_it_with_odd_spacing_too(self):
        self.assertEqual(lines("src/memory/layout.h", '  #  include  "pci/bus.h"'), [1])

    def test_refuses_a_name_without_its_folder(self):
        self.assertEqual(lines("src/memory/layout.cc", '#include "layout.h"'), [1])

    def test_takes_generated_headers_by_their_bare_name(self):
        text = '#include "vmservice.pb.h"\n#include "vmservice.ttrpc.h"\n'
        self.assertEqual(lines("src/vmservice/service.h", text), [])

    def test_keeps_the_contract_in_the_service(self):
        for name in ("vmservice.pb.h", "proto/vmservice.pb.h"):
            text = f'#include "{name}"\n'
            self.assertEqual(lines("src/machine/machine.h", text), [1])
            self.assertEqual(lines("src/vmservice/service.h", text), [])
            self.assertEqual(lines("cmd/bothyctl/run.cc", text), [])
            self.assertEqual(lines("src/ttrpc/client_test.cc", text), [])

    def test_keeps_ioctls_where_they_belong(self):
        self.assertEqual(lines("src/hypervisor/vm.h", "#include <linux/kvm.h>"), [1])
        self.assertEqual(lines("src/hypervisor/kvm/vm.cc", "#include <linux/kvm.h>"), [])
        self.assertEqual(lines("src/pci/pci_test.cc", "#include <linux/kvm.h>"), [1])
        self.assertEqual(lines("cmd/bothy/main.cc", "#include <linux/vfio.h>"), [1])

    def test_refuses_a_library_outside_the_law(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "src/util").mkdir(parents=True)
            (root / "src/util/things.h").write_text("")
            self.assertEqual(check_layers.main(root), 1)

    def test_has_the_order_of_the_build(self):
        cmake = (pathlib.Path(__file__).parent.parent / "CMakeLists.txt").read_text(encoding="utf-8")
        order = re.search(r"foreach\(folder IN ITEMS\s+(support[^)]*)\)", cmake)
        self.assertIsNotNone(order)
        self.assertEqual(tuple(order[1].split()), check_layers.LAYERS)


if __name__ == "__main__":
    unittest.main()
