#include "tests/integration/lab_test.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdlib>

namespace bothy::integration {

bool Soaks() {
  const char* const soaks = std::getenv("BOTHY_SOAK");
  return soaks != nullptr && *soaks != '\0';
}

wire::CreateVMRequest LabTest::Guest(uint64_t memory_mb, uint32_t processors,
                                     const std::string& command_line) const {
  wire::CreateVMRequest request = DirectBoot(Kernel(), memory_mb);
  request.mutable_config()->mutable_processor_config()->set_processor_count(processors);
  auto& boot = *request.mutable_config()->mutable_direct_boot();
  boot.set_initrd_path(BOTHY_GUEST_DIR "/initrd.img");
  boot.set_kernel_cmdline("console=ttyS0 quiet panic=-1 " + command_line);
  AddSerial(request, 0, SerialPath());
  AddSerial(request, 1, AgentPath());
  return request;
}

void LabTest::Boot(const wire::CreateVMRequest& request) {
  StartServer();
  ASSERT_THAT(vm_->Create(request), IsOk());
  ASSERT_THAT(vm_->Resume(), IsOk());
}

void LabTest::AwaitAgent() {
  const auto halted = std::make_shared<UniqueFd>(::eventfd(0, EFD_CLOEXEC));
  agent_ = std::make_unique<guest::AgentClient>(SerialClient(AgentPath()).Take(),
                                                UniqueFd(::dup(halted->get())));
  vm_->stub().WaitVMAsync({}, {}, [halted](const auto&) { ::eventfd_write(halted->get(), 1); });
  ASSERT_THAT(agent_->WaitReady(kBoot), IsOk());
}

void LabTest::BootWithAgent(const wire::CreateVMRequest& request) {
  ASSERT_NO_FATAL_FAILURE(Boot(request));
  ASSERT_NO_FATAL_FAILURE(AwaitAgent());
}

void LabTest::PowerOff() {
  ASSERT_THAT(agent_->End("poweroff", kAnswer), IsOk());
  EXPECT_EQ(vm_->HaltReason(), "power-off");
}

guest::AgentClient::Facts LabTest::Facts() {
  auto facts = agent_->ReadFacts(kAnswer);
  EXPECT_TRUE(facts.ok()) << facts.status();
  return facts.ok() ? *std::move(facts) : guest::AgentClient::Facts();
}

std::string LabTest::Fact(const guest::AgentClient::Facts& facts, const std::string& name) {
  EXPECT_EQ(facts.count(name), 1U) << name;
  const auto found = facts.find(name);
  return found == facts.end() ? "" : found->second;
}

std::string LabTest::Complaints(const guest::AgentClient::Facts& facts) {
  std::string lines;
  for (const auto& [name, value] : facts) {
    if (name.starts_with("log.")) lines += value + "\n";
  }
  return lines;
}

void LabTest::TearDown() {
  if (HasFailure() && server_ != nullptr && vm_ != nullptr) {
    // Whoever comes gets the end of what was printed.
    SerialClient console(SerialPath());
    (void)vm_->Teardown();
    std::cerr << "the guest's console:\n" << console.ReadToEnd() << "\n";
  }
  agent_.reset();
  ServerTest::TearDown();
}

}  // namespace bothy::integration
