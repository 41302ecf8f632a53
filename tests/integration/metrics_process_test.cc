// --metrics of a server without a VM. Needs no KVM.
#include "tests/integration/metrics_scrape.h"

namespace bothy::integration {
namespace {

using testing::HasSubstr;

TEST_F(MetricsTest, AServerWithoutAVmSaysSo) {
  Start();
  EXPECT_EQ(Parsed({metrics::Scrape(MetricsPath())}), "gauge bothy_vm_state{state=none} 1\n");
  EXPECT_THAT(vm_->Quit(), IsOk());
  server_->AwaitEnd();
  EXPECT_THAT(folder_.Names(), testing::ElementsAre("scrape0"));
}

TEST_F(MetricsTest, AnAddressThatIsNoneIsRefused) {
  ServerProcess server(
      {.socket_path = SocketPath(), .arguments = {"--metrics", "/run/metrics.sock"}});
  server.AwaitReady();
  EXPECT_NE(server.AwaitEnd(), 0);
  EXPECT_THAT(server.Log(), HasSubstr("--metrics /run/metrics.sock: \"/run/metrics.sock\" is "
                                      "neither unix:PATH nor HOST:PORT"));
}

}  // namespace
}  // namespace bothy::integration
