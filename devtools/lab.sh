# shellcheck shell=bash

run_lab() {
  need lab
  exec tests/lab/lab.py "$@"
}
