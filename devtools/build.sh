# shellcheck shell=bash
# Building: build_preset is what other commands call.

# Clones of this tree on one machine share what they compile.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1

# build_preset PRESET [TARGET...]: configures where that is due, then builds.
build_preset() {
  local preset=$1 target targets=()
  shift
  for target; do targets+=(--target "$target"); done
  [[ $preset == fuzz ]] && need fuzz
  need build
  # Two runs of ninja in one directory would do everything twice, and trip over each other.
  mkdir -p build
  # What was configured without Go looks for it again once it is there: tests need it.
  if [[ ! -f build/$preset/build.ninja ]] ||
    { grep -qE '^BOTHY_(GO|GOGOTTRPC|GO_TTRPC):.*-NOTFOUND$' "build/$preset/CMakeCache.txt" && command -v go >/dev/null; }; then
    step "configure $preset" flock "build/$preset.lock" cmake --preset "$preset"
  fi
  step "build $preset" flock "build/$preset.lock" cmake --build "build/$preset" "${targets[@]}"
}

run_build() {
  build_preset "${1:-release}"
}
