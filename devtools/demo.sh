# shellcheck shell=bash

# Debian's stock cloud kernel as a guest, through the service, with what it prints and a timeline.
run_demo() {
  local kernel=build/guest/vmlinuz initrd=build/guest/initrd.img
  need build lab
  build_preset release bothy bothyctl
  step "prepare the guest" tests/guest/prepare.sh
  step "probe this host's KVM" tests/lab/prepare.sh probe
  if tests/lab/lab.py --probe >/dev/null; then
    say "This host's own KVM runs the guest."
  else
    say "This host has no hardware-backed KVM: the guest runs in the lab, which emulates one (docs/lab.md)."
    step "prepare the lab" tests/lab/prepare.sh
  fi
  # It takes a few seconds, ten in the lab.
  exec tests/lab/lab.py --labs 3 --timeout 180 -- build/bin/bothyctl run --kernel "$kernel" --initrd "$initrd" --cpus 2 --memory 512M --timeline \
    --cmdline "console=ttyS0 panic=-1 bothy.demo=1${*:+ $*}"
}
