#include "virtio/scsi/scsi_controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <optional>

#include "disk/raw/raw_disk.h"
#include "disk/testing/memory_storage.h"
#include "support/check.h"
#include "support/endian.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/test_transport.h"

namespace bothy::virtio {
namespace {

using scsi_wire::Response;
using testing::DriverQueue;
using Buffer = DriverQueue::Buffer;

constexpr uint64_t kDiskBytes = 1 << 20;
constexpr uint64_t kHeader = 0x40000;
constexpr uint64_t kAnswer = 0x41000;
constexpr uint64_t kData = 0x50000;
constexpr uint32_t kHeaderBytes = scsi_wire::kRequestCdb + scsi_wire::kDefaultCdbSize;
constexpr uint32_t kAnswerBytes = scsi_wire::kResponseSense + scsi_wire::kDefaultSenseSize;
constexpr uint16_t kRequestQueue = scsi_wire::kFirstRequestQueue;

class FakeTransport final : public testing::TestTransport {
 public:
  void InterruptQueue(uint16_t queue) override { ++interrupts[queue]; }
  void NeedsReset(const absl::Status& reason) override { broken = std::string(reason.message()); }
  std::map<uint16_t, int> interrupts;
  std::string broken;
};

// A driver, a controller and a disk at LUN 3, all on this thread.
class ScsiControllerTest : public ::testing::Test {
 protected:
  ScsiControllerTest() {
    auto storage = std::make_unique<disk::MemoryStorage>();
    storage_ = storage.get();
    storage_->Truncate(kDiskBytes);
    CHECK_OK(target_.Attach(3, *disk::OpenRawDisk(std::move(storage)), {}));
    controller_.Resume();
    std::vector<std::unique_ptr<Virtqueue>> queues;
    for (DriverQueue* driver : {&control_, &events_, &requests_}) {
      queues.push_back(*Virtqueue::Create(*ram_, driver->setup()));
    }
    controller_.Activate(transport_, scsi_wire::kFeatureHotplug, std::move(queues));
    // The unit attention of power-on is not what these tests are about.
    Command({0x00});
  }
  ~ScsiControllerTest() override {
    bool done = false;
    controller_.Reset([&done] { done = true; });
    Settle([&done] { return done; });
    target_.Detach(3, [](std::unique_ptr<disk::Disk>) {});
  }

  // Runs everything that can run, until `until`.
  template <typename Until>
  void Settle(Until until) {
    loop_->RunUntil([&] { return until() || !(storage_->Pump() || Turn()); });
  }
  void Settle() {
    Settle([] { return false; });
  }
  // One more round of the loop for what was posted, which may post again; false after a few.
  bool Turn() {
    if (++turns_ % 8 == 0) return false;
    loop_->Post([] {});
    return true;
  }

  void PutRequest(std::initializer_list<uint8_t> cdb, uint8_t target = 0, uint16_t lun = 3) {
    std::array<uint8_t, kHeaderBytes> header{};
    header[0] = 1;
    header[1] = target;
    header[2] = static_cast<uint8_t>(0x40 | lun >> 8);
    header[3] = static_cast<uint8_t>(lun);
    StoreLe<uint64_t>(&header[scsi_wire::kRequestTag], 77);
    std::copy(cdb.begin(), cdb.end(), &header[scsi_wire::kRequestCdb]);
    ASSERT_TRUE(ram_->Write(kHeader, header).ok());
  }
  void SetAttribute(uint8_t attribute) {
    ASSERT_TRUE(ram_->Write(kHeader + scsi_wire::kRequestAttribute, std::span(&attribute, 1)).ok());
  }
  // Requests one at a time until the interrupt of one is held back; how many there were.
  int HoldBack() {
    for (int i = 0; i < 100; ++i) {
      const int told = transport_.interrupts[kRequestQueue];
      EXPECT_TRUE(Command({0x00}).has_value());
      if (transport_.interrupts[kRequestQueue] == told) return told;
    }
    ADD_FAILURE() << "each had its interrupt";
    return 0;
  }
  void Ring(uint16_t queue = kRequestQueue) {
    controller_.OnDoorbell(queue);
    Settle();
  }
  // A request with these buffers behind the header and the answer; how many bytes were written.
  std::optional<uint32_t> Command(std::initializer_list<uint8_t> cdb, uint32_t out = 0,
                                  uint32_t in = 0) {
    PutRequest(cdb);
    std::vector<Buffer> buffers = {{kHeader, kHeaderBytes, false}};
    if (out != 0) buffers.push_back({kData, out, false});
    buffers.push_back({kAnswer, kAnswerBytes, true});
    if (in != 0) buffers.push_back({kData, in, true});
    EXPECT_TRUE(requests_.Add(buffers).has_value());
    Ring();
    const auto used = requests_.TakeUsed();
    if (!used.has_value()) return std::nullopt;
    return used->written;
  }
  uint8_t AnswerByte(size_t offset) { return *ram_->ReadObject<uint8_t>(kAnswer + offset); }
  Response response() { return static_cast<Response>(AnswerByte(scsi_wire::kResponseResponse)); }
  uint8_t status() { return AnswerByte(scsi_wire::kResponseStatus); }
  uint32_t residual() {
    return *ram_->ReadObject<uint32_t>(kAnswer + scsi_wire::kResponseResidual);
  }
  // Key, ASC, ASCQ.
  std::array<uint8_t, 3> sense() {
    const size_t at = scsi_wire::kResponseSense;
    return {static_cast<uint8_t>(AnswerByte(at + 2) & 0xF), AnswerByte(at + 12),
            AnswerByte(at + 13)};
  }
  void Manage(uint32_t subtype, uint64_t tag, uint16_t lun = 3) {
    std::array<uint8_t, scsi_wire::kTaskManagementBytes> request{};
    StoreLe<uint32_t>(&request[4], subtype);
    request[8] = 1;
    request[10] = 0x40;
    request[11] = static_cast<uint8_t>(lun);
    StoreLe<uint64_t>(&request[16], tag);
    ASSERT_TRUE(ram_->Write(kHeader + 0x800, request).ok());
    const std::array<Buffer, 2> buffers = {
        {{kHeader + 0x800, scsi_wire::kTaskManagementBytes, false}, {kAnswer + 0x800, 1, true}}};
    ASSERT_TRUE(control_.Add(buffers).has_value());
    controller_.OnDoorbell(scsi_wire::kControlQueue);
  }
  Response managed() { return static_cast<Response>(*ram_->ReadObject<uint8_t>(kAnswer + 0x800)); }

  int turns_ = 0;
  std::unique_ptr<memory::GuestMemory> ram_ = testing::TestRam(4 * memory::kMiB);
  DriverQueue control_{*ram_, 0x1000, 16};
  DriverQueue events_{*ram_, 0x3000, 16};
  DriverQueue requests_{*ram_, 0x5000, 16};
  std::unique_ptr<IoLoop> loop_ = *IoLoop::Create();
  disk::MemoryStorage* storage_ = nullptr;
  scsi::Target target_{[this](std::function<void()> call) { loop_->Post(std::move(call)); }};
  FakeTransport transport_;
  int64_t now_ = int64_t{1} << 40;  // ns, of the controller's clock
  ScsiController controller_{
      {.name = "scsi0", .request_queues = 1, .now = [this] { return now_; }}, target_, *loop_};
};

TEST_F(ScsiControllerTest, WritesAndReadsBack) {
  const std::vector<uint8_t> pattern(1024, 0xA5);
  ASSERT_TRUE(ram_->Write(kData, pattern).ok());
  EXPECT_EQ(Command({0x2A, 0, 0, 0, 0, 8, 0, 0, 2}, 1024), kAnswerBytes);
  EXPECT_EQ(response(), Response::kOk);
  EXPECT_EQ(status(), 0);
  ASSERT_TRUE(ram_->Zero(kData, 1024).ok());
  EXPECT_EQ(Command({0x28, 0, 0, 0, 0, 8, 0, 0, 2}, 0, 1024), kAnswerBytes + 1024);
  EXPECT_EQ(*ram_->ReadObject<uint8_t>(kData + 1023), 0xA5);
  EXPECT_GE(transport_.interrupts[kRequestQueue], 2);
  EXPECT_EQ(controller_.counters().requests, 3U);
}

TEST_F(ScsiControllerTest, TellsHowMuchOfTheBuffersWasOfNoUse) {
  EXPECT_EQ(Command({0x28, 0, 0, 0, 0, 0, 0, 0, 1}, 0, 4096), kAnswerBytes + 512);
  EXPECT_EQ(residual(), 4096U - 512);
  EXPECT_EQ(Command({0x12, 0, 0, 0, 5}, 0, 64), kAnswerBytes + 5);
  EXPECT_EQ(residual(), 59U);
}

TEST_F(ScsiControllerTest, ACommandThatNeedsMoreRoomIsAnOverrun) {
  Command({0x28, 0, 0, 0, 0, 0, 0, 0, 2}, 0, 512);
  EXPECT_EQ(response(), Response::kOverrun);
  Command({0x2A, 0, 0, 0, 0, 0, 0, 0, 2}, 512);
  EXPECT_EQ(response(), Response::kOverrun);
}

TEST_F(ScsiControllerTest, SenseDataReachTheDriver) {
  Command({0x28, 0, 0xFF, 0, 0, 0, 0, 0, 1}, 0, 512);
  EXPECT_EQ(response(), Response::kOk);
  EXPECT_EQ(status(), 2);
  EXPECT_THAT(sense(), ::testing::ElementsAre(5, 0x21, 0));
  EXPECT_EQ(*ram_->ReadObject<uint32_t>(kAnswer), 18U);
}

TEST_F(ScsiControllerTest, OnlyTargetZeroIsThere) {
  PutRequest({0x00}, /*target=*/1);
  const std::array<Buffer, 2> buffers = {
      {{kHeader, kHeaderBytes, false}, {kAnswer, kAnswerBytes, true}}};
  requests_.Add(buffers);
  Ring();
  EXPECT_EQ(response(), Response::kBadTarget);
}

TEST_F(ScsiControllerTest, DataBothWaysWasNotNegotiated) {
  Command({0x28, 0, 0, 0, 0, 0, 0, 0, 1}, 512, 512);
  EXPECT_EQ(response(), Response::kFailure);
}

TEST_F(ScsiControllerTest, BuffersMayBeCutAnywhere) {
  PutRequest({0x28, 0, 0, 0, 0, 0, 0, 0, 1});
  std::vector<Buffer> buffers;
  for (uint32_t i = 0; i < 3; ++i) buffers.push_back({kHeader + uint64_t{17} * i, 17, false});
  buffers.push_back({kAnswer, 11, true});
  // The answer's end and the data's beginning share a buffer.
  ASSERT_TRUE(ram_->Zero(kAnswer, 2048).ok());
  buffers.push_back({kAnswer + 11, kAnswerBytes - 11 + 100, true});
  buffers.push_back({kData, 412, true});
  requests_.Add(buffers);
  Ring();
  EXPECT_EQ(requests_.TakeUsed()->written, kAnswerBytes + 512);
  EXPECT_EQ(response(), Response::kOk);
}

TEST_F(ScsiControllerTest, ShortRequestsAndAnswersNeedAReset) {
  PutRequest({0x00});
  const std::array<Buffer, 2> buffers = {
      {{kHeader, kHeaderBytes - 1, false}, {kAnswer, kAnswerBytes, true}}};
  requests_.Add(buffers);
  Ring();
  EXPECT_NE(transport_.broken, "");
  EXPECT_FALSE(requests_.TakeUsed().has_value());
  // Nothing is served until the reset.
  EXPECT_EQ(Command({0x00}), std::nullopt);
}

TEST_F(ScsiControllerTest, AHostileChainInAnyQueueNeedsAReset) {
  for (const uint16_t queue : {scsi_wire::kControlQueue, scsi_wire::kEventQueue, kRequestQueue}) {
    SCOPED_TRACE(queue);
    DriverQueue& driver = queue == scsi_wire::kControlQueue ? control_
                          : queue == scsi_wire::kEventQueue ? events_
                                                            : requests_;
    driver.RawSet(5, {kHeader, 16, DriverQueue::kNext, 5});
    driver.RawOffer(5);
    Ring(queue);
    EXPECT_THAT(transport_.broken, ::testing::HasSubstr("loop"));
    transport_.broken.clear();
    // As the driver would: reset, and new queues.
    bool done = false;
    controller_.Reset([&done] { done = true; });
    Settle([&done] { return done; });
    EXPECT_TRUE(done);
    control_ = DriverQueue(*ram_, 0x1000, 16);
    events_ = DriverQueue(*ram_, 0x3000, 16);
    requests_ = DriverQueue(*ram_, 0x5000, 16);
    ASSERT_TRUE(ram_->Zero(0x1000, 0x6000).ok());
    std::vector<std::unique_ptr<Virtqueue>> queues;
    for (DriverQueue* again : {&control_, &events_, &requests_}) {
      queues.push_back(*Virtqueue::Create(*ram_, again->setup()));
    }
    controller_.Activate(transport_, scsi_wire::kFeatureHotplug, std::move(queues));
    EXPECT_EQ(Command({0x00}), kAnswerBytes);
  }
}

TEST_F(ScsiControllerTest, AFailedReadIsAMediumErrorAndTheNextOneWorks) {
  storage_->on_request = [](const disk::Request&) { return absl::InternalError("gone"); };
  Command({0x28, 0, 0, 0, 0, 0, 0, 0, 1}, 0, 512);
  EXPECT_EQ(status(), 2);
  EXPECT_THAT(sense(), ::testing::ElementsAre(3, 0x11, 0));
  EXPECT_EQ(residual(), 512U);
  storage_->on_request = nullptr;
  EXPECT_EQ(Command({0x28, 0, 0, 0, 0, 0, 0, 0, 1}, 0, 512), kAnswerBytes + 512);
}

TEST_F(ScsiControllerTest, AnAbortWaitsForWhatItAborts) {
  PutRequest({0x28, 0, 0, 0, 0, 0, 0, 0, 1});
  const std::array<Buffer, 3> buffers = {
      {{kHeader, kHeaderBytes, false}, {kAnswer, kAnswerBytes, true}, {kData, 512, true}}};
  requests_.Add(buffers);
  controller_.OnDoorbell(kRequestQueue);
  Manage(0, 77);
  EXPECT_FALSE(control_.TakeUsed().has_value());
  Settle();
  EXPECT_TRUE(control_.TakeUsed().has_value());
  EXPECT_EQ(managed(), Response::kOk);
  EXPECT_EQ(response(), Response::kAborted);
}

TEST_F(ScsiControllerTest, TaskManagementOfNobodyIsAnIncorrectLun) {
  Manage(5, 0, /*lun=*/9);
  Settle();
  EXPECT_EQ(managed(), Response::kIncorrectLun);
  Manage(99, 0);
  Settle();
  EXPECT_EQ(managed(), Response::kFunctionRejected);
}

TEST_F(ScsiControllerTest, AnOrderedTaskWaitsForThoseBeforeIt) {
  PutRequest({0x28, 0, 0, 0, 0, 0, 0, 0, 1});
  const std::array<Buffer, 3> buffers = {
      {{kHeader, kHeaderBytes, false}, {kAnswer, kAnswerBytes, true}, {kData, 512, true}}};
  requests_.Add(buffers);
  controller_.OnDoorbell(kRequestQueue);
  SetAttribute(scsi_wire::kOrderedTask);
  requests_.Add(buffers);
  controller_.OnDoorbell(kRequestQueue);
  EXPECT_EQ(storage_->waiting(), 1U);
  Settle();
  EXPECT_TRUE(requests_.TakeUsed().has_value());
  EXPECT_TRUE(requests_.TakeUsed().has_value());
  EXPECT_EQ(response(), Response::kOk);
}

TEST_F(ScsiControllerTest, AnAttributeThatIsNoneFailsTheRequest) {
  PutRequest({0x00});
  SetAttribute(3);  // ACA
  const std::array<Buffer, 2> buffers = {
      {{kHeader, kHeaderBytes, false}, {kAnswer, kAnswerBytes, true}}};
  requests_.Add(buffers);
  Ring();
  EXPECT_EQ(response(), Response::kFailure);
}

// A probe of InterruptModeration, which happens among the first requests.
TEST_F(ScsiControllerTest, AnInterruptThatIsHeldBackComesWhenPatienceEnds) {
  const int told = HoldBack();
  now_ += InterruptModeration::kMostPatience;
  Settle();
  EXPECT_EQ(transport_.interrupts[kRequestQueue], told + 1);
  // The doorbell, which nobody had to ring meanwhile, is wanted again.
  EXPECT_FALSE(requests_.DeviceWantsNoDoorbell());
}

TEST_F(ScsiControllerTest, ARequestThatComesWhileAnInterruptIsHeldBackIsServed) {
  const int told = HoldBack();
  EXPECT_TRUE(requests_.DeviceWantsNoDoorbell());
  const std::array<Buffer, 2> buffers = {
      {{kHeader, kHeaderBytes, false}, {kAnswer, kAnswerBytes, true}}};
  requests_.Add(buffers);
  Settle();
  EXPECT_TRUE(requests_.TakeUsed().has_value());
  EXPECT_EQ(transport_.interrupts[kRequestQueue], told);
}

TEST_F(ScsiControllerTest, NoInterruptIsHeldBackOverAPause) {
  const int told = HoldBack();
  bool quiet = false;
  controller_.Quiesce([&quiet] { quiet = true; });
  Settle([&quiet] { return quiet; });
  EXPECT_EQ(transport_.interrupts[kRequestQueue], told + 1);
  controller_.Resume();
  EXPECT_FALSE(requests_.DeviceWantsNoDoorbell());
}

TEST_F(ScsiControllerTest, NothingIsTakenWhileQuiesced) {
  PutRequest({0x28, 0, 0, 0, 0, 0, 0, 0, 1});
  const std::array<Buffer, 3> buffers = {
      {{kHeader, kHeaderBytes, false}, {kAnswer, kAnswerBytes, true}, {kData, 512, true}}};
  requests_.Add(buffers);
  controller_.OnDoorbell(kRequestQueue);
  bool quiet = false;
  controller_.Quiesce([&quiet] { quiet = true; });
  EXPECT_FALSE(quiet);
  Settle([&quiet] { return quiet; });
  EXPECT_TRUE(quiet);
  EXPECT_TRUE(requests_.TakeUsed().has_value());
  requests_.Add(buffers);
  Ring();
  EXPECT_FALSE(requests_.TakeUsed().has_value());
  controller_.Resume();
  Settle();
  EXPECT_TRUE(requests_.TakeUsed().has_value());
}

TEST_F(ScsiControllerTest, TheConfigurationIsTheDriversToRead) {
  std::array<uint8_t, 4> word{};
  controller_.ReadConfig(scsi_wire::kConfigMaxLun, word);
  EXPECT_EQ(LoadLe<uint32_t>(word.data()), 63U);
  StoreLe<uint32_t>(word.data(), 20);
  controller_.WriteConfig(scsi_wire::kConfigSenseSize, word);
  controller_.ReadConfig(scsi_wire::kConfigSenseSize, word);
  EXPECT_EQ(LoadLe<uint32_t>(word.data()), 20U);
  StoreLe<uint32_t>(word.data(), 1 << 20);
  controller_.WriteConfig(scsi_wire::kConfigCdbSize, word);
  controller_.ReadConfig(scsi_wire::kConfigCdbSize, word);
  EXPECT_EQ(LoadLe<uint32_t>(word.data()), scsi_wire::kDefaultCdbSize);
}

TEST_F(ScsiControllerTest, AnnouncesAUnitAndHearsThatTheDriverHasSeenIt) {
  const std::array<Buffer, 1> buffer = {{{kData, scsi_wire::kEventBytes, true}}};
  events_.Add(buffer);
  Ring(scsi_wire::kEventQueue);
  std::optional<EventQueue::Outcome> outcome;
  controller_.Announce(ScsiController::Change::kAdded, 9,
                       [&](EventQueue::Outcome how) { outcome = how; });
  Settle();
  EXPECT_FALSE(outcome.has_value());
  EXPECT_EQ(*ram_->ReadObject<uint32_t>(kData), scsi_wire::kEventTransportReset);
  const std::array<uint8_t, 8> lun = {1, 0, 0, 9, 0, 0, 0, 0};  // peripheral: Linux knows no other
  EXPECT_EQ((*ram_->ReadObject<std::array<uint8_t, 8>>(kData + 4)), lun);
  EXPECT_EQ(*ram_->ReadObject<uint32_t>(kData + 12), scsi_wire::kReasonRescan);
  ASSERT_TRUE(events_.TakeUsed().has_value());
  events_.Add(buffer);
  Ring(scsi_wire::kEventQueue);
  EXPECT_EQ(outcome, EventQueue::Outcome::kHandled);
}

}  // namespace
}  // namespace bothy::virtio
