#!/usr/bin/env bash
# Makes a QEMU for the lab that is new enough, without installing it.
#
#   fetch_emulator.sh build/lab/emulator
#
# leaves build/lab/emulator/bin/qemu-system-x86_64, a script: it runs the installed one when that is new enough, else one of
# Debian's backports, unpacked beside it. docs/lab.md says what is wrong with older ones; one of them is better than no lab,
# so that is what there is when the backports can't be had. Does nothing when the script is there already.
set -euo pipefail

dest=${1:?destination} oldest=10
[[ -x $dest/bin/qemu-system-x86_64 ]] && exit 0

# shellcheck source=devtools/as_root.sh
. "$(dirname "$0")/../../devtools/as_root.sh"

version() { "$1" --version | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p'; }

# From the mirror that this machine uses. With lists of its own, so that apt's stay as they are.
fetch() {
  local work=$1 release mirror suite options package
  release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  # shellcheck disable=SC2016  # apt's own variable
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $release" | awk 'NR == 1')
  mkdir -p "$work/lists/partial"
  for suite in "$release" "$release-backports"; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian/} $suite main"
  done >"$work/sources"
  options=(-qq -o APT::Sandbox::User=root -o "Dir::Etc::SourceList=$work/sources" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$work/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
  as_root apt-get "${options[@]}" update &&
    (cd "$work" && as_root apt-get "${options[@]}" download {qemu-system-x86,qemu-system-data,seabios}/"$release-backports") &&
    for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work" || return; done
}

mkdir -p "$(dirname "$dest")"
dest=$(realpath -m "$dest")
work=$(mktemp -d "$dest.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
script=$work/bin/qemu-system-x86_64

printf '#!/bin/sh\nexec %q "$@"\n' "$(command -v qemu-system-x86_64)" >"$script"
if (($(version qemu-system-x86_64) < oldest)); then
  if fetch "$work" 2>"$work/log"; then
    cat >"$script" <<'SCRIPT'
#!/bin/sh
root=$(dirname "$(dirname "$(realpath "$0")")")
exec "$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" "$@"
SCRIPT
  else
    cat "$work/log"
    echo "lab: no QEMU $oldest in the backports: guests may crash for no fault of their own (docs/lab.md)"
  fi >&2
fi
rm -rf "$work"/{*.deb,lists,sources,log}
chmod 755 "$work" "$script"
version "$script" >/dev/null # all that it needs is installed: the installed one needs the same
rm -rf "$dest"
mv "$work" "$dest"
