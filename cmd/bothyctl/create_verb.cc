#include <memory>

#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/verbs.h"
#include "cmd/bothyctl/vm_flags.h"

namespace bothy::bothyctl {
namespace {

constexpr char kExamples[] =
    R"(  bothyctl -a vm.sock create --kernel vmlinuz --initrd initrd.img --cpus 2 --memory 2G \
      --cmdline console=ttyS0 --serial 0=/run/vm1-com1.sock
      a VM whose console a client of /run/vm1-com1.sock gets
  bothyctl -a vm.sock create --kernel vmlinuz --cmdline root=/dev/sda1 \
      --disk root.vhdx --disk tools.vhd,ro --pmem data.img
      with two SCSI disks and persistent memory
  bothyctl -a vm.sock create --config vm1.json --memory 4G
      the VM that vm1.json describes, with more memory
  generate-config | bothyctl -a vm.sock create --config -
      the same from standard input)";

}  // namespace

void AddCreateVerb(CommandLine& commands) {
  CLI::App* const verb = commands.AddVerb(&commands.app(), "create",
                                          "Build a VM and leave it paused (CreateVM)", kExamples);
  const auto flags = std::make_shared<VmFlags>();
  AddVmFlags(*verb, flags.get());
  commands.OnVerb(verb, [flags](const Globals& globals) -> int {
    for (const SerialFlag& serial : flags->serial) {
      if (!serial.terminal) continue;
      PrintError("--serial: only `bothyctl run` puts a port on the terminal; give a path");
      return kExitUsage;
    }
    const auto request = BuildCreateRequest(*flags);
    if (!request.ok()) return Tell("create", request.status());
    return CallAndPrint(globals, "CreateVM", &::vmservice::VMClient::CreateVM, *request);
  });
}

}  // namespace bothy::bothyctl
