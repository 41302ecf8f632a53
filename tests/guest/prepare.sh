#!/usr/bin/env bash
# Makes what tests boot under build/guest: Debian's cloud kernel (vmlinuz) and an initramfs of our agent, busybox and the
# virtio modules (initrd.img); with the argument "disk" also one that has what tests of disks need beside that
# (disk-initrd.img), with "net" one for tests of networks (net-initrd.img). Does only what is missing or older than its
# sources.
set -euo pipefail
cd "$(dirname "$0")/../.."

out=build/guest
here=tests/guest
# shellcheck source=tests/guest/make.sh
. $here/make.sh
lock "$out"
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

newer "$out/agent" $here/{agent,disk_programs,facts,first_process,net_programs,vsock_programs}.cc $here/{disk_programs,facts,first_process,known_tree,known_writes,net_programs,vsock_programs}.h ||
  compile "$out/agent" $here/{agent,disk_programs,facts,first_process,net_programs,vsock_programs}.cc

$here/debian_kernel.sh linux-image-cloud-amd64 "$out/kernel"
[[ $out/vmlinuz -ef $out/kernel/vmlinuz ]] || ln -f "$out/kernel/vmlinuz" "$out/vmlinuz"

newer "$out/initrd.img" "$out/agent" "$out/kernel/release" $here/{modules,prepare.sh,make.sh} || {
  release=$(<"$out/kernel/release")
  tree=$work/initrd
  mkdir -p "$tree"/{bin,dev,proc,sys,tmp,etc}
  cp "$out/agent" "$tree/init"
  for program in facts clock-gap await known-writes make-tree check-tree rss vsock-cid vsock-connect vsock-echo vsock-load vsock-many; do ln -s /init "$tree/bin/$program"; done
  cp /bin/busybox "$tree/bin/busybox"
  modules_with_dependencies "$out/kernel" "$release" $here/modules >"$out/modules.paths"
  while read -r path; do
    install -D -m 644 "$path" "$tree/lib/modules/$release/${path#*"/lib/modules/$release/"}"
  done <"$out/modules.paths"
  cp "$out/kernel/lib/modules/$release"/modules.{order,builtin,builtin.modinfo} "$tree/lib/modules/$release/"
  /sbin/depmod -b "$tree" "$release"
  rm "$tree/lib/modules/$release"/modules.{order,builtin,builtin.modinfo} "$tree/lib/modules/$release"/*.bin
  archive "$tree" "$out/initrd.img"
}

# with_programs NAME: NAME-initrd.img is initrd.img and what is in $work/NAME-tools.
with_programs() {
  archive "$work/$1-tools" "$work/$1-tools.cpio"
  # Archives one after the other are one to the kernel.
  cat "$out/initrd.img" "$work/$1-tools.cpio" >"$out/$1-initrd.img.new"
  mv "$out/$1-initrd.img.new" "$out/$1-initrd.img"
}

[[ " $* " != *" disk "* ]] || newer "$out/disk-initrd.img" "$out/initrd.img" $here/{stand_ins.py,prepare.sh,make.sh} || {
  tree=$work/disk-tools
  # fio's engines for these are of no use in the guest.
  mkdir -p "$tree"/{bin,lib/x86_64-linux-gnu}
  python3 $here/stand_ins.py "$(command -v fio)" "$tree/lib/x86_64-linux-gnu" lib{gfapi.so.0,nbd.so.0,ibverbs.so.1,rdmacm.so.1,rados.so.2,rbd.so.1,pmemblk.so.1,pmem.so.1}
  install_programs "$tree" fio mke2fs e2fsck resize2fs
  ln -s mke2fs "$tree/bin/mkfs.ext4"
  install -D -m 644 -t "$tree/etc" /etc/mke2fs.conf
  with_programs disk
}

[[ " $* " != *" net "* ]] || newer "$out/net-initrd.img" "$out/initrd.img" $here/{prepare.sh,make.sh} || {
  mkdir -p "$work/net-tools"
  install_programs "$work/net-tools" iperf3
  # What a DHCP client of busybox's does with a lease.
  install -D -m 755 $here/udhcpc.script "$work/net-tools/etc/udhcpc/default.script"
  with_programs net
}
