#!/usr/bin/env bash
# Makes what the lab needs under build/lab: a kernel with its modules, an initramfs, the probe of /dev/kvm.
# Does only what is missing or older than its sources.
set -euo pipefail
cd "$(dirname "$0")/../.."

out=${BOTHY_BUILD_DIR:-build}/lab
here=tests/lab
cxx=${CXX:-g++}
mkdir -p "$out"
exec {lock}>"$out/lock"
flock "$lock"

newer() { # newer TARGET SOURCE...: is the target there and no older than any source?
  local target=$1 source
  shift
  [[ -e $target ]] || return 1
  for source; do [[ ! $source -nt $target ]] || return 1; done
}

compile() { # compile TARGET SOURCE...
  local target=$1
  shift
  "$cxx" -std=c++20 -O2 -Wall -Wextra -Werror -static -s -I. -o "$target.new" "$@"
  mv "$target.new" "$target"
}

newer "$out/kvm_probe" $here/kvm_probe.cc || compile "$out/kvm_probe" $here/kvm_probe.cc
[[ ${1-} == probe ]] && exit

newer "$out/init" $here/lab_init.cc tests/guest/first_process.{h,cc} ||
  compile "$out/init" $here/lab_init.cc tests/guest/first_process.cc

tests/guest/debian_kernel.sh linux-image-amd64 "$out/kernel"
newer "$out/vmlinux" "$out/kernel/release" $here/unpack_kernel.py || {
  python3 $here/unpack_kernel.py "$out/kernel/vmlinuz" "$out/vmlinux.new"
  mv "$out/vmlinux.new" "$out/vmlinux"
}

newer "$out/initrd" "$out/init" "$out/kernel/release" $here/modules $here/prepare.sh || {
  release=$(<"$out/kernel/release")
  tree=$(mktemp -d "$out/initrd.XXXXXX")
  trap 'rm -rf "$tree"' EXIT
  cp "$out/init" "$tree/init"
  mkdir "$tree"/{dev,modules}
  # In the order in which they must be loaded; kvm-intel and kvm-amd each refuse the other's CPU.
  grep -v '^#' $here/modules | xargs /sbin/modprobe -d "$out/kernel" -S "$release" --show-depends -a |
    awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$tree/paths"
  xargs -a "$tree/paths" cp -t "$tree/modules"
  sed 's|.*/|/modules/|' "$tree/paths" >"$tree/modules.list"
  rm "$tree/paths"
  (cd "$tree" && find . | LC_ALL=C sort | cpio -o -H newc --reproducible --quiet) >"$out/initrd.new"
  mv "$out/initrd.new" "$out/initrd"
}
