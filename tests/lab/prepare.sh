#!/usr/bin/env bash
# Makes what the lab needs under build/lab: an emulator, a kernel with its modules, an initramfs, the probe of /dev/kvm.
# Does only what is missing or older than its sources.
set -euo pipefail
cd "$(dirname "$0")/../.."

out=build/lab
here=tests/lab
shared=tests/guest
# shellcheck source=tests/guest/make.sh
. $shared/make.sh
lock "$out"

newer "$out/kvm_probe" $here/kvm_probe.cc || compile "$out/kvm_probe" $here/kvm_probe.cc
[[ ${1-} == probe ]] && exit

newer "$out/init" $here/lab_init.cc $shared/first_process.{h,cc} ||
  compile "$out/init" $here/lab_init.cc $shared/first_process.cc

$here/fetch_emulator.sh "$out/emulator"

$shared/debian_kernel.sh linux-image-amd64 "$out/kernel"
newer "$out/vmlinux" "$out/kernel/release" $here/unpack_kernel.py || {
  python3 $here/unpack_kernel.py "$out/kernel/vmlinuz" "$out/vmlinux.new"
  mv "$out/vmlinux.new" "$out/vmlinux"
}

newer "$out/initrd" "$out/init" "$out/kernel/release" $here/{modules,prepare.sh} $shared/make.sh || {
  tree=$(mktemp -d "$out/initrd.XXXXXX")
  trap 'rm -rf "$tree"' EXIT
  cp "$out/init" "$tree/init"
  mkdir "$tree"/{dev,modules}
  # kvm-intel and kvm-amd each refuse the other's CPU.
  modules_with_dependencies "$out/kernel" "$(<"$out/kernel/release")" $here/modules >"$out/modules.paths"
  xargs -a "$out/modules.paths" cp -t "$tree/modules"
  sed 's|.*/|/modules/|' "$out/modules.paths" >"$tree/modules.list"
  archive "$tree" "$out/initrd"
}
