# shellcheck shell=bash

# Debian's stock cloud kernel as a guest, through the service, with what it prints and a timeline; then a whole Debian on
# a disk that bothyctl has made.
run_demo() {
  need build lab demo
  build_preset release bothy bothyctl
  step "prepare the guest" tests/guest/prepare.sh
  step "prepare Debian's root file system" tests/guest/debian.sh
  [[ build/debian/debian.vhdx -nt build/debian/root.ext4 ]] ||
    step "make a VHDX of it" build/bin/bothyctl disk convert --force build/debian/root.ext4 build/debian/debian.vhdx
  step "probe this host's KVM" tests/lab/prepare.sh probe
  if tests/lab/lab.py --probe >/dev/null; then
    say "This host's own KVM runs the guests."
  else
    say "This host has no hardware-backed KVM: the guests run in the lab, which emulates one (docs/lab.md)."
    step "prepare the lab" tests/lab/prepare.sh
  fi
  # It takes a few seconds, half a minute in the lab.
  exec tests/lab/lab.py --labs 3 --timeout 300 -- devtools/demo_guests.sh "$*"
}
