// --metrics while a guest runs.
#include "tests/integration/metrics_scrape.h"
#include "tests/micro/micro_guests.h"

namespace bothy::integration {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST_F(MetricsTest, CountersGrowWithWhatTheGuestDoes) {
  Start();
  wire::CreateVMRequest request = DirectBoot(KernelFile(micro::HelloKernel("hello")));
  AddSerial(request, 0, SerialPath());
  request.set_log_id("vm-\"1\"");
  ASSERT_THAT(vm_->Create(request), IsOk());
  std::vector<std::string> scrapes = {metrics::Scrape(MetricsPath())};
  ASSERT_THAT(vm_->Resume(), IsOk());
  ASSERT_THAT(vm_->Wait(), IsOk());
  scrapes.push_back(metrics::Scrape(MetricsPath()));
  const std::string samples = Parsed(scrapes);
  EXPECT_THAT(samples, HasSubstr("gauge bothy_vm_state{state=halted} 1\n"));
  EXPECT_THAT(samples, HasSubstr("gauge bothy_vm_info{log_id=vm-\"1\"} 1\n"));
  EXPECT_THAT(samples, HasSubstr("gauge bothy_memory_assigned_bytes{} 2.097152e+06\n"));
  EXPECT_THAT(samples, HasSubstr("counter bothy_serial_guest_output_bytes_total{port=com1} 5\n"));
  EXPECT_THAT(samples, HasSubstr("counter bothy_vcpu_exits_total{vcpu=0,reason=port} "));
  EXPECT_THAT(samples, Not(HasSubstr("counter bothy_vcpu_exits_total{vcpu=0,reason=port} 0\n")));
}

}  // namespace
}  // namespace bothy::integration
