// bothyctl: the command line client of bothy (docs/bothyctl.md).

#include <csignal>

#include "cmd/bothyctl/command_line.h"

int main(int argc, char** argv) {
  // A file that may grow no further is an error of the write.
  std::signal(SIGXFSZ, SIG_IGN);
  bothy::bothyctl::CommandLine commands;
  return commands.Run(argc, argv);
}
