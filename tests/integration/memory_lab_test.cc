// RAM that the host has no room for. Needs root and cgroup v2 with the memory controller; the lab
// has both.
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "tests/integration/server_test.h"
#include "tests/micro/micro_guests.h"

namespace bothy::integration {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class MemoryLabTest : public ServerTest {
 protected:
  MemoryLabTest() {
    std::ofstream("/sys/fs/cgroup/cgroup.subtree_control") << "+memory";
    // Left by a run that was killed it will do, too.
    EXPECT_TRUE(::mkdir(kCgroup, 0755) == 0 || errno == EEXIST);
    std::ofstream(std::string(kCgroup) + "/memory.max") << (300 << 20);
  }
  ~MemoryLabTest() override {
    server_.reset();
    EXPECT_EQ(::rmdir(kCgroup), 0);
  }

  static constexpr char kCgroup[] = "/sys/fs/cgroup/bothy-memory-test";
};

TEST_F(MemoryLabTest, PopulatingMoreThanTheCgroupHasRoomForIsRefused) {
  server_ = std::make_unique<ServerProcess>(
      ServerOptions{.arguments = {"-c", R"(echo $$ >"$2"/cgroup.procs; exec "$0" --ttrpc "$1")",
                                  BOTHY_SERVER, SocketPath(), kCgroup},
                    .program = "/bin/sh"});
  ASSERT_EQ(server_->AwaitReady(), "");
  vm_ = std::make_unique<Vm>(SocketPath());
  wire::CreateVMRequest request = DirectBoot(KernelFile(micro::PuppetKernel()), 512);
  request.mutable_config()->mutable_memory_config()->set_allow_overcommit(false);
  EXPECT_THAT(vm_->Create(request),
              Fails(absl::StatusCode::kResourceExhausted,
                    AllOf(HasSubstr("config.memory_config.memory_mb"), HasSubstr("cgroup"))));
  // The same server has room for less.
  request.mutable_config()->mutable_memory_config()->set_memory_mb(64);
  EXPECT_THAT(vm_->Create(request), IsOk());
  EXPECT_THAT(vm_->Quit(), IsOk());
  server_->AwaitEnd();
}

}  // namespace
}  // namespace bothy::integration
