// containerd's Hyper-V shim, as a Go program that makes its calls with its ttrpc package.
#include "tests/integration/server_test.h"
#include "tests/integration/shim_client.h"
#include "tests/micro/micro_guests.h"

namespace bothy::integration {
namespace {

class ShimTest : public ServerTest {};

TEST_F(ShimTest, TearsARunningVmDown) {
  const ProgramResult shim = RunShimClient(
      {.socket_path = SocketPath(), .kernel = KernelFile(micro::PuppetKernel()), .how = "stop"});
  EXPECT_EQ(shim.status, 0) << shim.error_output;
  EXPECT_EQ(shim.output, std::string(kShimStepsToResume) + "torn down\nwaited\nended\n");
  // The server's log records carry log_id.
  EXPECT_THAT(shim.error_output, testing::HasSubstr("shim-client"));
}

TEST_F(ShimTest, HearsOfTheGuestsOwnEnd) {
  const ProgramResult shim = RunShimClient({.socket_path = SocketPath(),
                                            .kernel = KernelFile(micro::HelloKernel("hello")),
                                            .how = "exit"});
  EXPECT_EQ(shim.status, 0) << shim.error_output;
  EXPECT_EQ(shim.output, std::string(kShimStepsToResume) + "waited\ntorn down\nwaited\nended\n");
}

}  // namespace
}  // namespace bothy::integration
