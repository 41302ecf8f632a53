# shellcheck shell=bash

run_soak() {
  need lab test
  build_preset release
  step "prepare the guest" tests/guest/prepare.sh
  step "prepare the lab" tests/lab/prepare.sh
  exec tests/lab/lab.py -- ctest --test-dir build/release -L '^soak$' --output-on-failure --no-tests=error "$@"
}
