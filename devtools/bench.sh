# shellcheck shell=bash

# A benchmark is a folder of bench/ with an executable `run`, which prints its figures and fails when a bound is missed.
run_bench() {
  local name failed=() names=("$@")
  need build lab test bench
  build_preset release
  step "prepare the guest" tests/guest/prepare.sh
  step "prepare the lab" tests/lab/prepare.sh
  if ((${#names[@]} == 0)); then mapfile -t names < <(cd bench && find . -mindepth 2 -maxdepth 2 -name run | cut -d/ -f2 | sort); fi
  for name in "${names[@]}"; do
    [[ -x bench/$name/run ]] || fail "bench: no such benchmark: $name"
  done
  for name in "${names[@]}"; do
    say "bench $name"
    "bench/$name/run" || failed+=("$name")
  done
  ((${#failed[@]} == 0)) || fail "bench failed: ${failed[*]}"
}
