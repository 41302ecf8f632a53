// LabTest: the fixture of tests that boot the stock guest (tests/guest) in a real server.
#pragma once

#include <memory>
#include <string>

#include "tests/guest/agent_client.h"
#include "tests/integration/server_test.h"

namespace bothy::integration {

// Whether tests are to go on for long, by hand: BOTHY_SOAK is set.
[[nodiscard]] bool Soaks();

class LabTest : public ServerTest {
 protected:
  // A CPU that is emulated, on a machine that is busy, takes its time.
  static constexpr absl::Duration kBoot = absl::Seconds(200);
  static constexpr absl::Duration kAnswer = absl::Seconds(100);

  static std::string Kernel() { return BOTHY_GUEST_DIR "/vmlinuz"; }
  // The same kernel's ELF file is not at hand; this is another of Debian's.
  static std::string Vmlinux() { return BOTHY_LAB_DIR "/vmlinux"; }

  // The guest with its console on COM1 and its agent on COM2.
  [[nodiscard]] wire::CreateVMRequest Guest(uint64_t memory_mb, uint32_t processors,
                                            const std::string& command_line = "") const;

  // Creates and resumes it on a server of its own, without waiting for it.
  void Boot(const wire::CreateVMRequest& request);
  // Waits until its agent serves COM2.
  void AwaitAgent();
  void BootWithAgent(const wire::CreateVMRequest& request);

  // Powers the guest off and sees it halt.
  void PowerOff();

  guest::AgentClient::Facts Facts();
  // The one value of a fact.
  static std::string Fact(const guest::AgentClient::Facts& facts, const std::string& name);
  // Lines of the kernel's log about stalls, and about what it found wrong.
  static std::string Complaints(const guest::AgentClient::Facts& facts);

  void TearDown() override;

  [[nodiscard]] std::string AgentPath() const { return folder_ / "com2.sock"; }

  std::unique_ptr<guest::AgentClient> agent_;
};

}  // namespace bothy::integration
