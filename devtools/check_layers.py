#!/usr/bin/env python3
"""Checks the dependency law (docs/architecture.md): check_layers.py [ROOT]

- A library of src/ includes only itself and libraries above it in the list.
- The contract's protobuf types are seen by src/vmservice, cmd/ and tests alone.
- KVM's and VFIO's ioctls are made by src/hypervisor/kvm and src/vfio alone.

Prints one line a breach, as FILE:LINE: what, and fails when there is one.
"""

import pathlib
import re
import sys

# Top of the law first. The same order as in CMakeLists.txt, which the test of this script checks.
LAYERS = (
    "support", "ttrpc", "inspect", "metrics", "memory", "disk", "scsi", "net", "sockets", "hypervisor", "chipset", "pci", "virtio",
    "vfio", "acpi", "boot", "host", "machine", "vmservice",
)  # fmt: skip

# Headers, by the end of their name, that only files under these folders may include.
RESERVED = (
    (("vmservice.pb.h", "vmservice.ttrpc.h", "vmservice.ttrpc.pb.h"), ("src/vmservice/", "cmd/")),
    (("linux/kvm.h", "linux/kvm_para.h"), ("src/hypervisor/kvm/",)),
    (("linux/vfio.h",), ("src/vfio/",)),
)

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
# Beside the code they test; they may use what they like of the machinery above, and the contract.
TEST = re.compile(r"_(test|fuzz|fake)\.(cc|h)$")


def breaches(path: str, text: str):
    """Yields (line number, what is wrong) for one file; `path` is relative to the root."""
    parts = path.split("/")
    library = parts[1] if parts[0] == "src" and len(parts) > 2 else None
    for number, line in enumerate(text.splitlines(), start=1):
        found = INCLUDE.match(line)
        if not found:
            continue
        quote, included = found.groups()
        for names, folders in RESERVED:
            allowed = path.startswith(folders) or (TEST.search(path) and names[0].startswith("vmservice"))
            if included.endswith(names) and not allowed:
                yield number, f"only {', '.join(folders)} may include {included}"
        if library is None or quote == "<":
            continue
        used = included.split("/")[0]
        if "/" not in included and not included.endswith((".pb.h", ".ttrpc.h")):
            yield number, f'write "{library}/…/{included}": a file of ours is named by its path from src/'
        elif used in LAYERS and LAYERS.index(used) > LAYERS.index(library):
            yield number, f"src/{library} may not use src/{used}, which stands below it"


def main(root: pathlib.Path) -> int:
    count = 0
    for top in ("src", "cmd"):
        for file in sorted((root / top).rglob("*")):
            if file.suffix not in (".cc", ".h"):
                continue
            path = file.relative_to(root).as_posix()
            if path.startswith("src/") and path.split("/")[1] not in LAYERS:
                print(f"{path}:1: src/{path.split('/')[1]} has no place in the dependency law")
                count += 1
                continue
            for number, what in breaches(path, file.read_text(encoding="utf-8")):
                print(f"{path}:{number}: {what}")
                count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
