#!/usr/bin/env bash
# Fetches the kernel package that a Debian meta package stands for and unpacks it, without installing it.
#
#   debian_kernel.sh linux-image-cloud-amd64 build/guest/kernel
#
# leaves build/guest/kernel/vmlinuz, build/guest/kernel/lib/modules/<release> (with modules.dep) and
# build/guest/kernel/release. Does nothing when they are there already.
set -euo pipefail

meta=${1:?meta package} dest=${2:?destination}
[[ -f $dest/release ]] && exit 0

# shellcheck source=devtools/as_root.sh
. "$(dirname "$0")/../../devtools/as_root.sh"

# The one image package that the meta package depends on, e.g. linux-image-6.1.0-56-cloud-amd64.
image_package() { apt-cache depends "$meta" | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }'; }

download() {
  local package
  package=$(image_package) && [[ -n $package ]] || return 1
  # apt's own sandbox user can't write to a directory of ours.
  (cd "$1" && apt-get -qq -o APT::Sandbox::User=root download "$package")
}

mkdir -p "$(dirname "$dest")"
dest=$(realpath "$dest")
work=$(mktemp -d "$dest.XXXXXX")
trap 'rm -rf "$work"' EXIT

if ! download "$work" 2>"$work/apt.log"; then
  # The lists are missing, or older than the mirror.
  as_root apt-get -qq update
  download "$work"
fi
dpkg-deb -x "$work"/*.deb "$work"
rm -f "$work"/*.deb "$work/apt.log"
rm -rf "${work:?}/usr"

cd "$work"
release=$(basename lib/modules/*)
mv "boot/vmlinuz-$release" vmlinuz
mv "boot/config-$release" config
rm -rf boot
/sbin/depmod -b . "$release"
echo "$release" >release
chmod 755 .
rm -rf "$dest"
mv "$work" "$dest"
