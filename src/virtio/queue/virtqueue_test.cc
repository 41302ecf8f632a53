#include "virtio/queue/virtqueue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "virtio/testing/driver_queue.h"

namespace bothy::virtio {
namespace {

using testing::DriverQueue;
using ::testing::HasSubstr;
using Buffer = DriverQueue::Buffer;

constexpr uint64_t kRam = 4 * memory::kMiB;
constexpr uint64_t kData = 1 * memory::kMiB;
constexpr uint16_t kSize = 8;

class VirtqueueTest : public ::testing::Test {
 protected:
  void Connect(bool event_index = false, bool indirect = true) {
    driver_.emplace(*ram_, 0x1000, kSize, event_index, indirect);
    auto queue = Virtqueue::Create(*ram_, driver_->setup());
    ASSERT_TRUE(queue.ok()) << queue.status();
    queue_ = *std::move(queue);
  }
  // What Pop says of a chain that is offered raw.
  std::string PopError() {
    Chain chain;
    const absl::StatusOr<bool> popped = queue_->Pop(chain);
    return popped.ok() ? (*popped ? "a chain" : "nothing") : std::string(popped.status().message());
  }
  [[nodiscard]] const void* Host(uint64_t gpa) const { return ram_->HostRange(gpa, 1)->data(); }

  std::unique_ptr<memory::GuestMemory> ram_ = testing::TestRam(kRam);
  std::optional<DriverQueue> driver_;
  std::unique_ptr<Virtqueue> queue_;
};

TEST_F(VirtqueueTest, TakesAChainsBuffersInOrder) {
  Connect();
  const std::array<Buffer, 3> buffers = {{{kData, 16}, {kData + 64, 32}, {kData + 512, 100, true}}};
  const auto head = driver_->Add(buffers);
  Chain chain;
  ASSERT_TRUE(*queue_->Pop(chain));
  EXPECT_EQ(chain.head, *head);
  ASSERT_EQ(chain.readable.size(), 2U);
  EXPECT_EQ(chain.readable[1].iov_base, Host(kData + 64));
  EXPECT_EQ(chain.readable_bytes, 48U);
  ASSERT_EQ(chain.writable.size(), 1U);
  EXPECT_EQ(chain.writable_bytes, 100U);
  EXPECT_FALSE(*queue_->Pop(chain));
  queue_->Push(*head, 7);
  const auto used = driver_->TakeUsed();
  ASSERT_TRUE(used.has_value());
  EXPECT_EQ(used->head, *head);
  EXPECT_EQ(used->written, 7U);
}

TEST_F(VirtqueueTest, IndirectTablesMayBeUnalignedAndAsLongAsTheQueue) {
  Connect();
  const std::vector<Buffer> buffers(kSize, Buffer{kData, 1, true});
  ASSERT_TRUE(driver_->AddIndirect(buffers, kData + 0x1001).has_value());
  Chain chain;
  ASSERT_TRUE(*queue_->Pop(chain));
  EXPECT_EQ(chain.writable_bytes, kSize);
}

TEST_F(VirtqueueTest, GoesRoundTheRingsPastTheirIndexesEnd) {
  Connect(/*event_index=*/true);
  Chain chain;
  const std::array<Buffer, 1> buffer = {{{kData, 1}}};
  for (int i = 0; i < 70'000; ++i) {
    const auto head = driver_->Add(buffer);
    ASSERT_TRUE(head.has_value());
    ASSERT_TRUE(*queue_->Pop(chain));
    queue_->Push(chain.head, 0);
    driver_->SetUsedEvent(static_cast<uint16_t>(i));
    ASSERT_TRUE(queue_->ShouldInterrupt()) << i;
    ASSERT_EQ(driver_->TakeUsed()->head, *head);
  }
}

TEST_F(VirtqueueTest, InterruptsOnlyWhenAskedTo) {
  Connect();
  Chain chain;
  const std::array<Buffer, 1> buffer = {{{kData, 1}}};
  driver_->Add(buffer);
  ASSERT_TRUE(*queue_->Pop(chain));
  EXPECT_FALSE(queue_->ShouldInterrupt());
  driver_->SetNoInterrupt(true);
  queue_->Push(chain.head, 0);
  EXPECT_FALSE(queue_->ShouldInterrupt());
  driver_->SetNoInterrupt(false);
  driver_->Add(buffer);
  ASSERT_TRUE(*queue_->Pop(chain));
  queue_->Push(chain.head, 0);
  EXPECT_TRUE(queue_->ShouldInterrupt());
  EXPECT_FALSE(queue_->ShouldInterrupt());
}

TEST_F(VirtqueueTest, TheEventIndexCoversEverythingPushedSince) {
  Connect(/*event_index=*/true);
  Chain chain;
  const std::array<Buffer, 1> buffer = {{{kData, 1}}};
  for (int i = 0; i < 3; ++i) driver_->Add(buffer);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(*queue_->Pop(chain));
    queue_->Push(chain.head, 0);
  }
  driver_->SetUsedEvent(1);  // after the second
  EXPECT_TRUE(queue_->ShouldInterrupt());
  driver_->SetUsedEvent(5);
  driver_->TakeUsed();
  driver_->Add(buffer);
  ASSERT_TRUE(*queue_->Pop(chain));
  queue_->Push(chain.head, 0);
  EXPECT_FALSE(queue_->ShouldInterrupt());
}

TEST_F(VirtqueueTest, EnablingTheDoorbellTellsOfWhatCameMeanwhile) {
  for (const bool event_index : {false, true}) {
    Connect(event_index);
    queue_->DisableDoorbell();
    if (!event_index) {
      EXPECT_TRUE(driver_->DeviceWantsNoDoorbell());
    }
    const std::array<Buffer, 1> buffer = {{{kData, 1}}};
    driver_->Add(buffer);
    EXPECT_TRUE(queue_->EnableDoorbell());
    Chain chain;
    ASSERT_TRUE(*queue_->Pop(chain));
    EXPECT_FALSE(queue_->EnableDoorbell());
    EXPECT_FALSE(driver_->DeviceWantsNoDoorbell());
    if (event_index) {
      EXPECT_EQ(driver_->AvailableEvent(), 1);
    }
    ram_ = testing::TestRam(kRam);
  }
}

TEST_F(VirtqueueTest, RefusesHostileChains) {
  struct Case {
    const char* what;
    std::vector<DriverQueue::RawDescriptor> descriptors;
    const char* error;
  };
  const uint64_t table = kData;
  const std::vector<Case> cases = {
      {"a loop", {{kData, 16, DriverQueue::kNext, 1}, {kData, 16, DriverQueue::kNext, 0}}, "loop"},
      {"itself", {{kData, 16, DriverQueue::kNext, 0}}, "loop"},
      {"next outside", {{kData, 16, DriverQueue::kNext, kSize}}, "descriptor 8 of a table of 8"},
      {"outside RAM", {{kRam - 8, 16, 0, 0}}, "isn't RAM"},
      {"address wraps", {{UINT64_MAX - 8, 16, 0, 0}}, "isn't RAM"},
      {"huge", {{0, UINT32_MAX, 0, 0}}, "isn't RAM"},
      {"read after write",
       {{kData, 16, DriverQueue::kNext | DriverQueue::kWrite, 1}, {kData, 16, 0, 0}},
       "to be read"},
      {"indirect with next", {{table, 16, DriverQueue::kIndirect | DriverQueue::kNext, 1}}, "next"},
      {"odd table", {{table, 17, DriverQueue::kIndirect, 0}}, "indirect table of 17"},
      {"empty table", {{table, 0, DriverQueue::kIndirect, 0}}, "indirect table of 0"},
      {"64 KiB of descriptors",
       {{table, 65536, DriverQueue::kIndirect, 0}},
       "indirect table of 65536"},
      {"table outside", {{kRam, 16, DriverQueue::kIndirect, 0}}, "isn't RAM"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    Connect();
    for (size_t i = 0; i < c.descriptors.size(); ++i) {
      driver_->RawSet(static_cast<uint16_t>(i), c.descriptors[i]);
    }
    driver_->RawOffer(0);
    EXPECT_THAT(PopError(), HasSubstr(c.error));
    ram_ = testing::TestRam(kRam);
  }
}

TEST_F(VirtqueueTest, RefusesAnIndirectTableInAnother) {
  Connect();
  driver_->RawSetAt(kData, {kData, 16, DriverQueue::kIndirect, 0});
  driver_->RawSet(0, {kData, 16, DriverQueue::kIndirect, 0});
  driver_->RawOffer(0);
  EXPECT_THAT(PopError(), HasSubstr("within an indirect table"));
}

TEST_F(VirtqueueTest, RefusesWhatWasNotNegotiated) {
  Connect(/*event_index=*/false, /*indirect=*/false);
  driver_->RawSet(0, {kData, 16, DriverQueue::kIndirect, 0});
  driver_->RawOffer(0);
  EXPECT_THAT(PopError(), HasSubstr("wasn't negotiated"));
}

TEST_F(VirtqueueTest, RefusesAHeadOutsideTheTableAndAnIndexTooFarAhead) {
  Connect();
  driver_->RawOffer(kSize);
  EXPECT_THAT(PopError(), HasSubstr("descriptor 8"));
  Connect();
  driver_->RawSetAvailableIndex(kSize + 1);
  EXPECT_THAT(PopError(), HasSubstr("further than the ring is long"));
}

TEST_F(VirtqueueTest, RefusesMoreChainsThanDescriptors) {
  Connect();
  driver_->RawSet(0, {kData, 16, 0, 0});
  Chain chain;
  for (int i = 0; i < kSize; ++i) {
    driver_->RawOffer(0);
    ASSERT_TRUE(*queue_->Pop(chain));
  }
  driver_->RawOffer(0);
  EXPECT_THAT(PopError(), HasSubstr("more chains are in flight"));
}

TEST_F(VirtqueueTest, RefusesRingsThatAreMisalignedOrNoRam) {
  const QueueSetup good = DriverQueue(*ram_, 0x1000, kSize).setup();
  const auto refused = [&](auto change) {
    QueueSetup setup = good;
    change(setup);
    return absl::IsInvalidArgument(Virtqueue::Create(*ram_, setup).status());
  };
  EXPECT_TRUE(Virtqueue::Create(*ram_, good).ok());
  EXPECT_TRUE(refused([](QueueSetup& s) { s.size = 3; }));
  EXPECT_TRUE(refused([](QueueSetup& s) { s.size = 0; }));
  EXPECT_TRUE(refused([](QueueSetup& s) { s.size = 2 * kMaxQueueSize; }));
  EXPECT_TRUE(refused([](QueueSetup& s) { s.descriptor_gpa += 8; }));
  EXPECT_TRUE(refused([](QueueSetup& s) { s.driver_gpa += 1; }));
  EXPECT_TRUE(refused([](QueueSetup& s) { s.device_gpa += 2; }));
  EXPECT_TRUE(refused([](QueueSetup& s) { s.device_gpa = kRam - 4; }));
  EXPECT_TRUE(refused([](QueueSetup& s) { s.descriptor_gpa = UINT64_MAX - 15; }));
}

}  // namespace
}  // namespace bothy::virtio
