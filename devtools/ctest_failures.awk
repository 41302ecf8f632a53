# What a person needs of ctest's --output-on-failure: the head of each failed test's output, then the closing lines.
function finish() { if (hidden > 0) printf "    (%d more lines in the log)\n", hidden; hidden = 0 }

/^ *[0-9]+\/[0-9]+ Test +#/ { finish(); failed = !/ Passed /; shown = 0 }
/^ +Start +[0-9]+: / { next }
/^[0-9]+% tests passed/ { finish(); closing = 1 }
closing { print; next }
failed { if (shown++ < 60) print; else hidden++ }
