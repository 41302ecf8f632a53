// Requests that can't become a VM: the status and the path of contract.md, nothing left behind, and
// the same server then boots a good one.
#include <elf.h>

#include <cstddef>
#include <cstring>
#include <span>

#include "boot/test_kernels.h"
#include "tests/integration/server_test.h"
#include "tests/micro/micro_guests.h"

namespace bothy::integration {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;
using Bytes = std::vector<uint8_t>;

constexpr StatusCode kInvalid = StatusCode::kInvalidArgument;
constexpr char kKernelPath[] = "config.direct_boot.kernel_path: ";

class BootRefusalTest : public ServerTest {
 protected:
  void SetUp() override {
    StartServer();
    good_ = folder_.Write("good", micro::HelloKernel("hello"));
  }
  // Whatever was refused before: this server still makes VMs.
  void TearDown() override {
    if (vm_ != nullptr) {
      EXPECT_EQ(folder_.Names().size(), files_) << "a refusal left a file behind";
      EXPECT_THAT(vm_->Create(DirectBoot(good_)), IsOk());
      EXPECT_THAT(vm_->Resume(), IsOk());
      EXPECT_EQ(vm_->HaltReason(), "power-off");
      EXPECT_THAT(vm_->Teardown(), IsOk());
    }
    ServerTest::TearDown();
  }

  absl::Status CreateWith(const Bytes& kernel) {
    files_ = 3;
    return vm_->Create(DirectBoot(KernelFile(kernel)));
  }
  [[nodiscard]] wire::CreateVMRequest Good() const { return DirectBoot(good_); }

  std::string good_;
  size_t files_ = 2;  // the socket and the good kernel
};

TEST_F(BootRefusalTest, KernelThatIsNotThere) {
  EXPECT_THAT(vm_->Create(DirectBoot(folder_ / "nothing")),
              Fails(StatusCode::kNotFound, StartsWith(kKernelPath + (folder_ / "nothing"))));
}

TEST_F(BootRefusalTest, KernelThatIsNoFile) {
  EXPECT_THAT(vm_->Create(DirectBoot(folder_.path())),
              Fails(kInvalid, StartsWith(kKernelPath + folder_.path())));
}

TEST_F(BootRefusalTest, EmptyKernel) {
  EXPECT_THAT(CreateWith({}),
              Fails(kInvalid, AllOf(StartsWith(kKernelPath), EndsWith("the file is empty"))));
}

TEST_F(BootRefusalTest, RandomBytes) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    EXPECT_THAT(CreateWith(boot::Scramble(5000 * seed + 1, seed)),
                Fails(kInvalid, AllOf(StartsWith(kKernelPath),
                                      EndsWith("is neither a bzImage nor an ELF vmlinux"))));
  }
}

TEST_F(BootRefusalTest, ElfTruncatedAnywhere) {
  const Bytes whole = micro::HelloKernel("hello");
  // Every byte of the headers, then every byte of the segment.
  for (size_t size = 1; size < whole.size(); ++size) {
    EXPECT_THAT(CreateWith({whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)}),
                Fails(kInvalid, StartsWith(kKernelPath)))
        << size << " bytes of " << whole.size();
  }
}

TEST_F(BootRefusalTest, BzImageTruncatedAtEveryBoundary) {
  const Bytes whole =
      boot::BuildBzImage(boot::Pack(micro::HelloKernel("hello"), boot::Packing::kGzip));
  for (const size_t size :
       {size_t{1}, size_t{0x1F1}, size_t{0x1FE}, size_t{0x200}, size_t{0x202}, size_t{0x206},
        size_t{0x230}, size_t{0x248}, size_t{0x250}, size_t{0x264}, boot::kTestSetupBytes,
        boot::kTestSetupBytes + 0x200, boot::kTestSetupBytes + boot::kTestPayloadOffset,
        boot::kTestSetupBytes + boot::kTestPayloadOffset + 10}) {
    ASSERT_LT(size, whole.size());
    EXPECT_THAT(CreateWith({whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)}),
                Fails(kInvalid, StartsWith(kKernelPath)))
        << size << " bytes of " << whole.size();
  }
}

TEST_F(BootRefusalTest, BzImageWithACorruptPayload) {
  Bytes image = boot::BuildBzImage(boot::Pack(micro::HelloKernel("hello"), boot::Packing::kXz));
  for (size_t at = boot::kTestSetupBytes + boot::kTestPayloadOffset + 16; at < image.size();
       at += 7) {
    image[at] ^= 0x5A;
  }
  EXPECT_THAT(CreateWith(image), Fails(kInvalid, StartsWith(kKernelPath)));
}

TEST_F(BootRefusalTest, AnotherArchitecture) {
  for (const uint16_t machine : {EM_AARCH64, EM_386, EM_RISCV, EM_PPC64, EM_NONE}) {
    EXPECT_THAT(
        CreateWith(boot::BuildElf({.entry = micro::kLoadAddress,
                                   .segments = {{.gpa = micro::kLoadAddress, .bytes = Bytes(16)}},
                                   .machine = machine})),
        Fails(kInvalid, AllOf(StartsWith(kKernelPath), HasSubstr("is for another architecture"))));
  }
  Bytes elf32 = micro::HelloKernel("hello");
  elf32[EI_CLASS] = ELFCLASS32;
  EXPECT_THAT(CreateWith(elf32), Fails(kInvalid, HasSubstr("isn't 64-bit little-endian")));
  Bytes big_endian = micro::HelloKernel("hello");
  big_endian[EI_DATA] = ELFDATA2MSB;
  EXPECT_THAT(CreateWith(big_endian), Fails(kInvalid, HasSubstr("isn't 64-bit little-endian")));
}

TEST_F(BootRefusalTest, WrongNotes) {
  const auto with_note = [](const Bytes& note) {
    return boot::BuildElf({.entry = micro::kLoadAddress,
                           .segments = {{.gpa = micro::kLoadAddress, .bytes = Bytes(16)}},
                           .notes = {note}});
  };
  // An entry outside the kernel, a descriptor of no sensible size, a name that runs off the end.
  EXPECT_THAT(CreateWith(with_note(boot::BuildPvhNote(0x20'0000))),
              Fails(kInvalid, AllOf(StartsWith(kKernelPath),
                                    HasSubstr("PVH entry point 0x200000 lies outside"))));
  EXPECT_THAT(CreateWith(with_note(boot::BuildNote("Xen", 18, Bytes(3)))),
              Fails(kInvalid, AllOf(StartsWith(kKernelPath), HasSubstr("PVH entry point"))));
  Bytes note = boot::BuildPvhNote(micro::kLoadAddress);
  note[0] = 0xFF;
  EXPECT_THAT(CreateWith(with_note(note)),
              Fails(kInvalid, AllOf(StartsWith(kKernelPath), HasSubstr("note is truncated"))));
}

TEST_F(BootRefusalTest, KernelThatDoesNotFitIntoRam) {
  wire::CreateVMRequest request = Good();
  request.mutable_config()->mutable_memory_config()->set_memory_mb(1);
  EXPECT_THAT(vm_->Create(request), Fails(StatusCode::kResourceExhausted, StartsWith(kKernelPath)));
}

TEST_F(BootRefusalTest, InitrdLargerThanRam) {
  files_ = 3;
  wire::CreateVMRequest request = Good();
  request.mutable_config()->mutable_direct_boot()->set_initrd_path(
      folder_.Write("initrd", Bytes(3 << 20)));
  EXPECT_THAT(vm_->Create(request), Fails(StatusCode::kResourceExhausted,
                                          StartsWith("config.direct_boot.initrd_path: ")));
}

TEST_F(BootRefusalTest, InitrdThatIsNotThereOrEmpty) {
  files_ = 3;
  wire::CreateVMRequest request = Good();
  request.mutable_config()->mutable_direct_boot()->set_initrd_path(folder_ / "nothing");
  EXPECT_THAT(vm_->Create(request),
              Fails(StatusCode::kNotFound, StartsWith("config.direct_boot.initrd_path: ")));
  request.mutable_config()->mutable_direct_boot()->set_initrd_path(folder_.Write("initrd", {}));
  EXPECT_THAT(vm_->Create(request),
              Fails(kInvalid, StartsWith("config.direct_boot.initrd_path: ")));
}

TEST_F(BootRefusalTest, CommandLineTooLong) {
  wire::CreateVMRequest request = Good();
  request.mutable_config()->mutable_direct_boot()->set_kernel_cmdline(std::string(2048, 'x'));
  EXPECT_THAT(vm_->Create(request), Fails(kInvalid,
                                          "config.direct_boot.kernel_cmdline: 2048 bytes "
                                          "are more than this kernel takes, 2047"));

  // A bzImage says itself how long.
  files_ = 3;
  const std::string bzimage =
      KernelFile(boot::BuildBzImage(boot::Pack(micro::HelloKernel("hello"), boot::Packing::kGzip),
                                    [](setup_header& header) { header.cmdline_size = 100; }));
  request.mutable_config()->mutable_direct_boot()->set_kernel_path(bzimage);
  request.mutable_config()->mutable_direct_boot()->set_kernel_cmdline(std::string(101, 'x'));
  EXPECT_THAT(vm_->Create(request), Fails(kInvalid,
                                          "config.direct_boot.kernel_cmdline: 101 bytes "
                                          "are more than this kernel takes, 100"));
}

TEST_F(BootRefusalTest, MemoryThatCannotBe) {
  wire::CreateVMRequest request = Good();
  auto& memory = *request.mutable_config()->mutable_memory_config();
  memory.set_memory_mb(0);
  EXPECT_THAT(vm_->Create(request),
              Fails(kInvalid, StartsWith("config.memory_config.memory_mb: ")));
  // Committed memory that no host has, then more than a CPU can address.
  memory.set_allow_overcommit(false);
  memory.set_memory_mb(uint64_t{1} << 24);
  EXPECT_THAT(vm_->Create(request), Fails(StatusCode::kResourceExhausted,
                                          StartsWith("config.memory_config.memory_mb: ")));
  memory.set_memory_mb(UINT64_MAX);
  EXPECT_THAT(vm_->Create(request), Fails(StatusCode::kResourceExhausted,
                                          StartsWith("config.memory_config.memory_mb: ")));
}

TEST_F(BootRefusalTest, TooManyProcessors) {
  for (const uint32_t count : {100'000U, UINT32_MAX}) {
    wire::CreateVMRequest request = Good();
    request.mutable_config()->mutable_processor_config()->set_processor_count(count);
    EXPECT_THAT(vm_->Create(request),
                Fails(kInvalid, AllOf(StartsWith("config.processor_config.processor_count: " +
                                                 std::to_string(count) + " is out of range 0.."))));
  }
}

TEST_F(BootRefusalTest, MmioWindowsThatCannotBe) {
  const auto create = [this](uint64_t low_gap, uint64_t high_base, uint64_t high_gap) {
    wire::CreateVMRequest request = Good();
    auto& memory = *request.mutable_config()->mutable_memory_config();
    memory.set_low_mmio_gap_in_mb(low_gap);
    memory.set_high_mmio_base_in_mb(high_base);
    memory.set_high_mmio_gap_in_mb(high_gap);
    return vm_->Create(request);
  };
  EXPECT_THAT(create(511, 0, 0), Fails(kInvalid, StartsWith("config.memory_config.low_mmio_gap")));
  EXPECT_THAT(create(3073, 0, 0), Fails(kInvalid, StartsWith("config.memory_config.low_mmio_gap")));
  // A high window in the low one's place.
  EXPECT_THAT(create(0, 3500, 1024),
              Fails(kInvalid, StartsWith("config.memory_config.high_mmio_base_in_mb: ")));
  // Beyond every x86 CPU's 52 bits: the base, the end.
  EXPECT_THAT(create(0, uint64_t{1} << 32, 0),
              Fails(kInvalid, StartsWith("config.memory_config.high_mmio_base_in_mb: ")));
  EXPECT_THAT(create(0, 4096, uint64_t{1} << 32),
              Fails(kInvalid, StartsWith("config.memory_config.high_mmio_gap_in_mb: ")));
  EXPECT_THAT(create(0, UINT64_MAX, UINT64_MAX),
              Fails(kInvalid, StartsWith("config.memory_config.high_mmio_base_in_mb: ")));
}

TEST_F(BootRefusalTest, SerialSocketsThatCannotBe) {
  wire::CreateVMRequest request = Good();
  // The first port is fine and must be gone again.
  AddSerial(request, 0, SerialPath());
  AddSerial(request, 1, folder_ / "no such folder/com2.sock");
  EXPECT_THAT(
      vm_->Create(request),
      Fails(StatusCode::kNotFound, StartsWith("config.serial_config.ports[1].socket_path: ")));
  auto& second = *request.mutable_config()->mutable_serial_config()->mutable_ports(1);
  second.set_socket_path(folder_ / "nobody.sock");
  second.set_connect(true);
  EXPECT_THAT(
      vm_->Create(request),
      Fails(StatusCode::kNotFound, StartsWith("config.serial_config.ports[1].socket_path: ")));
  second.set_connect(false);
  second.set_socket_path(good_);  // a file of somebody's
  EXPECT_THAT(
      vm_->Create(request),
      Fails(StatusCode::kAlreadyExists, StartsWith("config.serial_config.ports[1].socket_path: ")));
  second.set_socket_path(folder_ / std::string(120, 'x'));
  EXPECT_THAT(vm_->Create(request),
              Fails(kInvalid, StartsWith("config.serial_config.ports[1].socket_path: ")));
}

}  // namespace
}  // namespace bothy::integration
