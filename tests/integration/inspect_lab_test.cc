// The state tree of a stock guest that works: every path at every depth, by several clients, while
// its disks, cards and sockets come and go.
#include <sys/socket.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/disk_lab.h"
#include "tests/integration/guest_ports.h"

namespace bothy::integration {
namespace {

using google::protobuf::Value;
using testing::IsSupersetOf;

constexpr size_t kClients = 8;
constexpr uint32_t kDepths = 8;  // more shows nothing more

// Every path below `value`, itself included.
void Collect(const std::string& path, const Value& value, std::vector<std::string>* all) {
  all->push_back(path);
  for (const auto& [name, below] : value.struct_value().fields()) {
    Collect(path.empty() ? name : absl::StrCat(path, "/", name), below, all);
  }
}

class InspectLabTest : public DiskLabTest {
 protected:
  [[nodiscard]] std::string VsockPath() const { return folder_ / "vsock"; }
  static absl::StatusOr<Value> Look(Vm& vm, const std::string& path, uint32_t depth) {
    wire::InspectVMRequest request;
    request.set_query(path);
    request.set_recursion_limit(depth);
    auto answer = vm.stub().InspectVM(request);
    if (!answer.ok()) return answer.status();
    return std::move(*answer->mutable_result());
  }
  std::vector<std::string> Paths() {
    std::vector<std::string> paths;
    const auto whole = Look(*vm_, "", 24);
    EXPECT_TRUE(whole.ok()) << whole.status();
    if (whole.ok()) Collect("", *whole, &paths);
    return paths;
  }
  absl::Status ModifyNic(wire::ModifyType type) {
    wire::ModifyResourceRequest request;
    request.set_type(type);
    request.mutable_nic_config()->set_nic_id("11111111-2222-3333-4444-555555555555");
    if (type == wire::ADD) request.mutable_nic_config()->mutable_user();
    return vm_->stub().ModifyResource(request).status();
  }
  absl::Status ModifySocket(wire::ModifyType type) {
    wire::VMSocketRequest request;
    request.set_type(type);
    request.mutable_vsock_listen()->set_port(9000);
    request.mutable_vsock_listen()->set_listener_path(folder_ / "nobody");
    return vm_->stub().VMSocket(request).status();
  }
  double Number(const std::string& path) {
    const auto value = Look(*vm_, path, 0);
    EXPECT_TRUE(value.ok()) << path << ": " << value.status();
    return value.ok() ? value->number_value() : 0;
  }
};

TEST_F(InspectLabTest, EverythingIsLookedAtWhileDevicesWorkComeAndGo) {
  const TestImage disk = images_.Make(folder_, KindOf("dynamic.vhdx"), 64 * kMiB);
  const TestImage other = images_.Make(folder_, KindOf("dynamic.vhd"), 64 * kMiB);
  wire::CreateVMRequest request = DiskGuest();
  request.mutable_config()->mutable_hvsocket_config()->set_path(VsockPath());
  Add(request, ScsiDisk(disk, 0));
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  const std::string device = AwaitDisk(0);

  // I/O of both kinds until the end.
  const auto copying = agent_->Start(
      absl::StrCat("while dd if=", device, " of=", device,
                   " bs=64k count=64 iflag=direct oflag=direct 2>/dev/null; do :; done"));
  ASSERT_TRUE(copying.ok()) << copying.status();
  (void)InGuest(kAwaitVsockDriver);
  const auto echo = agent_->Start("vsock-echo 8000");
  ASSERT_TRUE(echo.ok()) << echo.status();
  ASSERT_THAT(agent_->AwaitOutput(*echo, "listening", kAnswer), IsOk());
  std::atomic<bool> over = false;
  std::thread talker([&] {
    const UniqueFd socket = ConnectToPort(VsockPath(), 8000);
    const std::string line = std::string(20'000, 'x') + "\n";
    while (!over) {
      Say(socket, line);
      EXPECT_EQ(Line(socket), line);
    }
  });

  const auto all_come = [&] {
    EXPECT_THAT(Modify(wire::ADD, ScsiDisk(other, 1)), IsOk());
    EXPECT_THAT(ModifyNic(wire::ADD), IsOk());
    EXPECT_THAT(ModifySocket(wire::ADD), IsOk());
  };
  const auto all_go = [&] {
    EXPECT_THAT(Modify(wire::REMOVE, ScsiDisk(other, 1)), IsOk());
    EXPECT_THAT(ModifyNic(wire::REMOVE), IsOk());
    EXPECT_THAT(ModifySocket(wire::REMOVE), IsOk());
  };
  all_come();
  const std::vector<std::string> paths = Paths();
  EXPECT_THAT(paths,
              IsSupersetOf({"devices/scsi0/luns/1/disk/format", "devices/net0/card",
                            "devices/vsock0/sockets/listeners/9000", "processors/0/exits/port"}));
  const double read_before = Number("devices/scsi0/luns/0/read_bytes");
  const double said_before = Number("devices/vsock0/sockets/bytes_from_guest");

  // Each path at each depth is looked at by one of the clients at least once, and on until the
  // changes are over.
  std::vector<std::thread> clients;
  for (size_t client = 0; client < kClients; ++client) {
    clients.emplace_back([&, client] {
      Vm vm(SocketPath());
      bool all = false;
      for (size_t i = client; !all || !over; i += kClients) {
        const size_t look = i % (paths.size() * kDepths);
        all = all || i + kClients >= paths.size() * kDepths;
        const std::string& path = paths[look / kDepths];
        const auto answer = Look(vm, path, static_cast<uint32_t>(look % kDepths));
        // What it leads through may just have gone, or be on its way.
        EXPECT_TRUE(answer.ok() || answer.status().code() == absl::StatusCode::kNotFound ||
                    answer.status().code() == absl::StatusCode::kUnavailable)
            << path << ": " << answer.status();
      }
    });
  }
  for (uint64_t round = 0; round < Rounds(2, 20); ++round) {
    all_go();
    all_come();
  }
  over = true;
  for (std::thread& client : clients) client.join();
  talker.join();
  // Neither has stood still, and the tree is what it was.
  EXPECT_GT(Number("devices/scsi0/luns/0/read_bytes"), read_before);
  EXPECT_GT(Number("devices/vsock0/sockets/bytes_from_guest"), said_before);
  EXPECT_THAT(Paths(), IsSupersetOf({"devices/scsi0/luns/1/disk/format", "devices/net0/card",
                                     "devices/vsock0/sockets/listeners/9000"}));
}

}  // namespace
}  // namespace bothy::integration
