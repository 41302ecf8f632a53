#!/usr/bin/env python3
"""Makes stand-ins for shared libraries that a program is linked with and won't call.

    stand_ins.py PROGRAM FOLDER LIBRARY...

Debian's fio is linked with every storage system that it has an engine for, Ceph and Gluster among them: 80 MiB of libraries, which
would have to be in the guest's memory and be relocated each time fio starts. A stand-in has a library's name and, with their versions,
those of its functions that the program names; each traps when it is called.
"""

import collections
import pathlib
import re
import subprocess
import sys


def output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def dynamic_symbols(file: str, which: str) -> set[tuple[str, str]]:
    """Names and versions; the version is empty where the library has none."""
    symbols = set()
    for line in output("nm", "-D", "--with-symbol-versions", which, file).splitlines():
        name, _, version = line.split()[-1].replace("@@", "@").partition("@")
        symbols.add((name, version))
    return symbols


def libraries_of(program: str) -> dict[str, str]:
    """The paths of the shared libraries that a program needs, by name."""
    return dict(re.findall(r"^\s*(\S+) => (/\S+)", output("ldd", program), re.MULTILINE))


def make(library: str, symbols: set[tuple[str, str]], folder: pathlib.Path) -> None:
    functions = "".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name, _ in sorted(symbols))
    by_version = collections.defaultdict(list)
    for name, version in sorted(symbols):
        if version:
            by_version[version].append(name)
    script = "".join(f"{version} {{ global: {'; '.join(names)}; }};\n" for version, names in by_version.items())
    command = ["gcc", "-shared", "-nostdlib", "-fno-builtin", "-s", "-w", f"-Wl,-soname,{library}", "-o", str(folder / library), "-x", "c", "-"]
    if script:
        versions = folder / f"{library}.versions"
        versions.write_text(script)
        command.insert(1, f"-Wl,--version-script={versions}")
    subprocess.run(command, check=True, input=functions, text=True)
    if script:
        versions.unlink()


def main() -> None:
    program, folder, *libraries = sys.argv[1:]
    needed = dynamic_symbols(program, "--undefined-only")
    paths = libraries_of(program)
    for library in libraries:
        if library in paths:
            make(library, needed & dynamic_symbols(paths[library], "--defined-only"), pathlib.Path(folder))


if __name__ == "__main__":
    main()
