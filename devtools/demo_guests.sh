#!/usr/bin/env bash
# What ./dev demo shows, where there is KVM: a guest that introduces itself, and a Debian on a VHDX. The argument is more of the
# kernels' command line.
set -euo pipefail

bothyctl=build/bin/bothyctl
guest=(--kernel build/guest/vmlinuz --initrd build/guest/initrd.img --timeline)
command_line="console=ttyS0 panic=-1${1:+ $1}"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Says a command, and runs it.
show() {
  printf '\n$ %s\n' "$*"
  "$@"
}

"$bothyctl" run "${guest[@]}" --cpus 2 --memory 512M --cmdline "$command_line bothy.demo=1"

# What the guest writes goes to a disk of its own, which has only what differs from Debian's.
show "$bothyctl" disk create "$folder/root.vhdx" --parent build/debian/debian.vhdx
show "$bothyctl" run "${guest[@]}" --cpus 1 --memory 512M --disk "$folder/root.vhdx" --cmdline "$command_line quiet root=/dev/sda debian.demo"
show "$bothyctl" disk info "$folder/root.vhdx"
show "$bothyctl" disk check "$folder/root.vhdx"
