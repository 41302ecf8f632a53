# shellcheck shell=bash

run_fmt() {
  need lint
  git ls-files -z --cached --others --exclude-standard '*.cc' '*.h' | xargs -0 -r clang-format-14 -i
}
