// bothyctl: the command line client of bothy (docs/bothyctl.md).

#include "cmd/bothyctl/command_line.h"

int main(int argc, char** argv) {
  bothy::bothyctl::CommandLine commands;
  return commands.Run(argc, argv);
}
