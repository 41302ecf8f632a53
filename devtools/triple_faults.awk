# From ctest's output: the names of the tests that failed, when the guest of each of them died of a triple fault.
/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: / {
  failing = ""
  if ($0 ~ /\*\*\*/) {
    failing = $0
    sub(/^[^:]*: /, "", failing)
    sub(/ .*/, "", failing)
    failed[failing] = 0
  }
}
failing != "" && /I vm: the guest's triple-fault halts the VM/ { failed[failing] = 1 }
END {
  for (name in failed) if (!failed[name]) exit
  for (name in failed) print name
}
