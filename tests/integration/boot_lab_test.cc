// Stock kernels: that they boot by every way in, and see the machine that was asked for.
#include <fstream>
#include <iterator>

#include "tests/integration/lab_test.h"
#include "tests/integration/shim_client.h"

namespace bothy::integration {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;
// What direct boot keeps from the guest's RAM below 1 MiB: the EBDA, the VGA hole and the BIOS area
// (docs/machine.md).
constexpr uint64_t kReservedBelow1Mib = 0x10'0000 - 0x9'FC00;

class BootLabTest : public LabTest {
 protected:
  void ExpectMachine(const guest::AgentClient::Facts& facts, uint64_t memory_mb,
                     uint32_t processors) {
    EXPECT_EQ(Fact(facts, "cpus.online"), std::to_string(processors));
    EXPECT_EQ(Fact(facts, "cpus.possible"),
              processors == 1 ? "0" : "0-" + std::to_string(processors - 1));
    EXPECT_EQ(Fact(facts, "cpus.siblings"), std::to_string(processors));
    EXPECT_EQ(Fact(facts, "cpus.cores"), std::to_string(processors));
    EXPECT_EQ(Fact(facts, "memory.ram_bytes"),
              std::to_string(memory_mb * kMiB - kReservedBelow1Mib));
    EXPECT_EQ(Fact(facts, "clock.source"), "kvm-clock");
    EXPECT_EQ(Complaints(facts), "");
  }
};

struct Shape {
  uint64_t memory_mb;
  uint32_t processors;
};

class ShapeLabTest : public BootLabTest, public testing::WithParamInterface<Shape> {};

TEST_P(ShapeLabTest, TheGuestSeesExactlyWhatWasAskedFor) {
  const auto [memory_mb, processors] = GetParam();
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(Guest(memory_mb, processors)));
  ExpectMachine(Facts(), memory_mb, processors);
  const auto properties = vm_->Properties();
  ASSERT_TRUE(properties.ok()) << properties.status();
  EXPECT_EQ(properties->memory_stats().assigned_memory(), memory_mb * kMiB);
  EXPECT_GT(properties->memory_stats().working_set_bytes(), 0U);
  EXPECT_LE(properties->memory_stats().working_set_bytes(), memory_mb * kMiB);
  EXPECT_GT(properties->processor_stats().total_runtime_ns(), 0U);
  PowerOff();
}

// 6 GiB lie around the MMIO gap: 3 GiB below it, 3 above 4 GiB.
INSTANTIATE_TEST_SUITE_P(Guests, ShapeLabTest,
                         testing::Values(Shape{128, 1}, Shape{512, 2}, Shape{6144, 8}),
                         [](const auto& shape) {
                           return std::to_string(shape.param.memory_mb) + "MibOn" +
                                  std::to_string(shape.param.processors) + "Cpus";
                         });

TEST_F(BootLabTest, RamGoesOnAboveAHighMmioWindowThatLeavesItNoRoom) {
  wire::CreateVMRequest request = Guest(2560, 2);
  auto& memory = *request.mutable_config()->mutable_memory_config();
  memory.set_low_mmio_gap_in_mb(2048);
  memory.set_high_mmio_base_in_mb(4096 + 256);
  memory.set_high_mmio_gap_in_mb(1024);
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  const guest::AgentClient::Facts facts = Facts();
  ExpectMachine(facts, 2560, 2);
  std::string ranges;
  for (auto [at, end] = facts.equal_range("memory.range"); at != end; ++at) {
    if (at->second.find("System RAM") != std::string::npos) ranges += at->second + "\n";
  }
  // 2 GiB below the low window, 256 MiB below the high one, 256 MiB above it.
  EXPECT_EQ(ranges,
            "0x0 0x9fbff System RAM\n"
            "0x100000 0x7fffffff System RAM\n"
            "0x100000000 0x10fffffff System RAM\n"
            "0x150000000 0x15fffffff System RAM\n");
  PowerOff();
}

TEST_F(BootLabTest, TheGuestMayUnpackItsKernelItself) {
  wire::CreateVMRequest request = Guest(512, 2);
  (*request.mutable_config()->mutable_extra_data())["bothy.kernel.unpack"] = "guest";
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  ExpectMachine(Facts(), 512, 2);
  PowerOff();
}

TEST_F(BootLabTest, AVmlinuxIsEnteredByItsPvhNote) {
  wire::CreateVMRequest request = Guest(512, 2);
  request.mutable_config()->mutable_direct_boot()->set_kernel_path(Vmlinux());
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  ExpectMachine(Facts(), 512, 2);
  PowerOff();
}

TEST_F(BootLabTest, AVmlinuxWithoutAPvhNoteIsEnteredAtItsEntryPoint) {
  std::ifstream file(Vmlinux(), std::ios::binary);
  std::vector<uint8_t> vmlinux((std::istreambuf_iterator<char>(file)), {});
  // XEN_ELFNOTE_PHYS32_ENTRY, with a name of 4 bytes and a descriptor of 8 or 4, becomes a note of
  // another type.
  for (const uint8_t descriptor_bytes : {8, 4}) {
    const std::vector<uint8_t> note = {4,   0,   0,   0, descriptor_bytes, 0, 0, 0, 18, 0, 0, 0,
                                       'X', 'e', 'n', 0};
    const auto found = std::search(vmlinux.begin(), vmlinux.end(), note.begin(), note.end());
    if (found == vmlinux.end()) continue;
    *(found + 8) = 99;
    wire::CreateVMRequest request = Guest(512, 2);
    request.mutable_config()->mutable_direct_boot()->set_kernel_path(
        folder_.Write("vmlinux", vmlinux));
    vmlinux = {};
    ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
    ExpectMachine(Facts(), 512, 2);
    PowerOff();
    return;
  }
  FAIL() << Vmlinux() << " has no PVH note to take away";
}

TEST_F(BootLabTest, SerialPortsCarryInputAndOutput) {
  ASSERT_NO_FATAL_FAILURE(Boot(Guest(256, 1)));
  ASSERT_NO_FATAL_FAILURE(AwaitAgent());
  SerialClient console(SerialPath());
  console.ReadUntil("bothy-guest: init ");

  const auto reader = agent_->Start(
      "exec 3<>/dev/ttyS0; echo listening >&3; read -r line <&3; echo \"heard $line\"");
  ASSERT_TRUE(reader.ok()) << reader.status();
  console.ReadUntil("listening");
  console.Send("a line from the host\n");
  const auto heard = agent_->Finish(*reader, kAnswer);
  ASSERT_TRUE(heard.ok()) << heard.status();
  EXPECT_EQ(heard->output, "heard a line from the host\n");

  // More than any buffer on the way holds.
  const auto printed = agent_->Run("seq 10000 >/dev/ttyS0", kAnswer);
  ASSERT_TRUE(printed.ok()) << printed.status();
  EXPECT_EQ(printed->status, 0) << printed->error_output;
  EXPECT_THAT(console.ReadUntil("\n10000\r\n"), HasSubstr("\r\n4999\r\n5000\r\n5001\r\n"));
  PowerOff();
}

TEST_F(BootLabTest, ContainerdsShimRunsAStockKernelToItsPowerOff) {
  const ProgramResult shim =
      RunShimClient({.socket_path = SocketPath(),
                     .kernel = Kernel(),
                     .initrd = BOTHY_GUEST_DIR "/initrd.img",
                     .command_line = "console=ttyS0 quiet panic=-1 bothy.end=poweroff",
                     .memory_mb = 512,
                     .processors = 2,
                     .how = "exit"});
  EXPECT_EQ(shim.status, 0) << shim.error_output;
  EXPECT_EQ(shim.output, std::string(kShimStepsToResume) + "waited\ntorn down\nwaited\nended\n");
  EXPECT_THAT(shim.error_output, HasSubstr("power-off"));
}

}  // namespace
}  // namespace bothy::integration
