// What a stock guest says of its memory, and gives back of it.
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "tests/integration/lab_test.h"

namespace bothy::integration {
namespace {

constexpr uint64_t kMiB = 1 << 20;

class BalloonLabTest : public LabTest {
 protected:
  wire::MemoryStats Memory() {
    wire::PropertiesVMRequest request;
    request.add_types(wire::PropertiesVMRequest::Memory);
    const auto properties = vm_->stub().PropertiesVM(request);
    EXPECT_TRUE(properties.ok()) << properties.status();
    return properties.ok() ? properties->memory_stats() : wire::MemoryStats();
  }
  void Run(const std::string& command) {
    const auto result = agent_->Run(command, kAnswer);
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->status, 0) << result->output << result->error_output;
  }
  std::string Balloon() {
    wire::InspectVMRequest request;
    request.set_query("devices/balloon0/memory");
    request.set_recursion_limit(2);
    const auto answer = vm_->stub().InspectVM(request);
    return answer.ok() ? answer->result().DebugString() : answer.status().ToString();
  }
  // Drivers come on their own in the guest.
  void AwaitDriver() {
    while (Memory().available_memory() == 0 && !HasFailure()) {
    }
  }
  static std::string Fill(uint64_t mib) {
    return absl::StrCat("dd if=/dev/urandom of=/tmp/filled bs=1M count=", mib, " 2>/dev/null");
  }
};

TEST_F(BalloonLabTest, AGuestSaysWhatItHasLeft) {
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(Guest(256, 1)));
  AwaitDriver();
  const uint64_t before = Memory().available_memory();
  EXPECT_LT(before, 256 * kMiB);
  ASSERT_NO_FATAL_FAILURE(Run(Fill(100)));
  EXPECT_LT(Memory().available_memory(), before - 80 * kMiB);
  // What was said last, of a guest that is paused.
  const uint64_t last = Memory().available_memory();
  EXPECT_THAT(vm_->Pause(), IsOk());
  EXPECT_EQ(Memory().available_memory(), last);
  EXPECT_THAT(vm_->Resume(), IsOk());
  ASSERT_NO_FATAL_FAILURE(Run("rm /tmp/filled"));
  EXPECT_GT(Memory().available_memory(), before - 20 * kMiB);
}

TEST_F(BalloonLabTest, WhatAGuestFreesIsTheHostsAgain) {
  constexpr uint64_t kMib = 320;
  wire::CreateVMRequest request = Guest(768, 1);
  request.mutable_config()->mutable_memory_config()->set_cold_discard_hint(true);
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  AwaitDriver();
  ASSERT_NO_FATAL_FAILURE(Run(Fill(kMib)));
  const uint64_t filled = Memory().working_set_bytes();
  EXPECT_GT(filled, kMib * kMiB);
  ASSERT_NO_FATAL_FAILURE(Run("rm /tmp/filled"));
  // The guest reports every two seconds, by its own clock.
  const uint64_t goal = filled - kMib * kMiB * 95 / 100;
  for (int second = 0; second < 60 && Memory().working_set_bytes() > goal; ++second) {
    ASSERT_NO_FATAL_FAILURE(Run("sleep 1"));
  }
  EXPECT_LE(Memory().working_set_bytes(), goal) << Balloon();
  // It can be used again.
  ASSERT_NO_FATAL_FAILURE(Run(Fill(kMib)));
  EXPECT_GT(Memory().working_set_bytes(), kMib * kMiB);
}

}  // namespace
}  // namespace bothy::integration
