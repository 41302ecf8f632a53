// What a unit says about itself and its state: TEST UNIT READY, START STOP UNIT, REQUEST SENSE,
// what it supports, and unit attentions.
#include "scsi/command_table.h"
#include "scsi/testing/target_test.h"

namespace bothy::scsi {
namespace {

using disk::Operation;
using ::testing::ElementsAre;
using ::testing::SizeIs;

class UnitTest : public TargetTest {
 protected:
  TestCommand& StartStop(uint8_t flags) {
    return Run({.lun = 0, .cdb = Cdb(0x1B, 6).Put8(4, flags)});
  }
  std::vector<uint8_t> RequestSense(uint8_t flags = 0) {
    TestCommand& command =
        Run({.lun = 0, .cdb = Cdb(0x03, 6).Put8(1, flags).Put8(4, 252), .data_in_bytes = 252});
    ExpectGood(command);
    return command.data_in();
  }
  TestCommand& ReportOpcodes(uint8_t options, uint8_t opcode = 0, uint16_t action = 0,
                             uint16_t lun = 0) {
    const Cdb cdb = Cdb(0xA3, 12)
                        .Put8(1, 0x0C)
                        .Put8(2, options)
                        .Put8(3, opcode)
                        .Put16(4, action)
                        .Put32(6, 2048);
    return Run({.lun = lun, .cdb = cdb, .data_in_bytes = 2048});
  }
};

TEST_F(UnitTest, AStoppedUnitIsNotReadyUntilItIsStarted) {
  disk::FakeDisk& disk = Attach(0);
  std::vector<Operation> operations;
  disk.storage().on_request = [&](const disk::Request& request) {
    operations.push_back(request.operation);
    return absl::OkStatus();
  };
  ExpectGood(StartStop(0x00));
  EXPECT_THAT(operations, ElementsAre(Operation::kFlush));
  for (const std::vector<uint8_t>& cdb : std::vector<std::vector<uint8_t>>{
           {0x00}, Read10(0, 1), Write10(0, 1), Cdb(0x25, 10), Cdb(0x35, 10)}) {
    EXPECT_EQ(Condition(Run({.lun = 0, .cdb = cdb, .data_in_bytes = 512})), kStopped);
  }
  EXPECT_EQ(RequestSense()[12], 0x04);
  ExpectGood(StartStop(0x01));
  ExpectGood(Run({.lun = 0, .cdb = {0x00}}));
  EXPECT_EQ(RequestSense()[2], 0);
  // NO_FLUSH.
  ExpectGood(StartStop(0x04));
  EXPECT_THAT(operations, SizeIs(1));
}

TEST_F(UnitTest, TheMediumIsNotTheGuestsToEject) {
  Attach(0);
  ExpectInvalidField(StartStop(0x02), 4);
  ExpectInvalidField(StartStop(0x30), 4);
  ExpectGood(Run({.lun = 0, .cdb = Cdb(0x1E, 6).Put8(4, 1)}));
  ExpectGood(Run({.lun = 0, .cdb = {0x00}}));
}

TEST_F(UnitTest, TheDefaultSelfTestPasses) {
  Attach(0);
  ExpectGood(Run({.lun = 0, .cdb = Cdb(0x1D, 6).Put8(1, 0x04)}));
  ExpectInvalidField(Run({.lun = 0, .cdb = Cdb(0x1D, 6).Put8(1, 0x20)}), 1);
  ExpectInvalidField(Run({.lun = 0, .cdb = Cdb(0x1D, 6).Put8(1, 0x10)}), 1);
  ExpectInvalidField(Run({.lun = 0, .cdb = Cdb(0x1D, 6).Put16(3, 8), .data_out = Pattern(8)}), 3);
}

TEST_F(UnitTest, UnknownCommandsActionsAndControlBits) {
  Attach(0);
  for (const uint8_t opcode : {0x04, 0x16, 0x4D, 0x5E, 0x5F, 0x7F, 0xA2, 0xC0, 0xFF}) {
    EXPECT_EQ(Condition(Run({.lun = 0, .cdb = {opcode}})), kInvalidOpcode) << int{opcode};
  }
  const TestCommand& action = Run({.lun = 0, .cdb = Cdb(0x9E, 16).Put8(1, 0x11)});
  ExpectInvalidField(action, 1);
  EXPECT_EQ(action.sense()[15], 0xCC);  // bit 4
  ExpectInvalidField(Run({.lun = 0, .cdb = Cdb(0xA3, 12)}), 1);
  ExpectInvalidField(Run({.lun = 0, .cdb = Cdb(0x00, 6).Put8(5, 0x04)}), 5);  // NACA
  Cdb read = Read10(0, 1);
  ExpectInvalidField(Run({.lun = 0, .cdb = read.Put8(9, 0x04), .data_in_bytes = 512}), 9);
}

TEST_F(UnitTest, ShortCdbsReadAsZero) {
  Attach(0);
  ExpectGood(Run({.lun = 0, .cdb = {0x28}}));
  ExpectGood(Run({.lun = 0, .cdb = {}}));
  ExpectGood(Run({.lun = 0, .cdb = std::vector<uint8_t>(260)}));
}

TEST_F(UnitTest, AttentionsAreToldOnceInTheirOrder) {
  AttachFresh(0);
  // These answer in spite of them; REQUEST SENSE takes one away.
  ExpectGood(Run({.lun = 0, .cdb = Cdb(0x12, 6).Put8(4, 96), .data_in_bytes = 96}));
  ExpectGood(Run({.lun = 0, .cdb = Cdb(0xA0, 12).Put32(6, 16), .data_in_bytes = 16}));
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = {0xFF}})), kPowerOn);
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = {0xFF}})), kInvalidOpcode);

  disks_[0]->size_after_refresh = 2 * kTestDiskBytes;
  EXPECT_TRUE(*target_.RefreshCapacity(0));
  EXPECT_FALSE(*target_.RefreshCapacity(0));
  AttachFresh(1, TestDisk("/images/b.img"));
  AttachFresh(2, TestDisk("/images/c.img"));
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = Read10(0, 1), .data_in_bytes = 512})),
            kCapacityChanged);
  const std::vector<uint8_t> sense = RequestSense();
  EXPECT_EQ(sense[2], 6);
  EXPECT_EQ(sense[12], 0x3F);
  EXPECT_EQ(sense[13], 0x0E);
  ExpectGood(Run({.lun = 0, .cdb = Read10(4095, 1), .data_in_bytes = 512}));
}

TEST_F(UnitTest, WhoHasReadTheLunsNeedsNotHearThatTheyChanged) {
  Attach(0);
  Attach(1, TestDisk("/images/b.img"));
  ExpectGood(Run({.lun = 1, .cdb = Cdb(0xA0, 12).Put32(6, 64), .data_in_bytes = 64}));
  ExpectGood(Run({.lun = 0, .cdb = {0x00}}));
  Detach(1);
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = {0x00}})), kReportedLunsChanged);
}

TEST_F(UnitTest, RequestSenseInBothFormats) {
  AttachFresh(0);
  EXPECT_THAT(RequestSense(1), ElementsAre(0x72, 6, 0x29, 0, 0, 0, 0, 0));
  EXPECT_THAT(RequestSense(0),
              ElementsAre(0x70, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
}

TEST_F(UnitTest, ADiskCutToNothingHasNoMedium) {
  disk::FakeDisk& disk = Attach(0);
  disk.size_after_refresh = 0;
  EXPECT_TRUE(*target_.RefreshCapacity(0));
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = {0x00}})), kCapacityChanged);
  for (const std::vector<uint8_t>& cdb :
       std::vector<std::vector<uint8_t>>{{0x00}, Read10(0, 1), Cdb(0x25, 10)}) {
    EXPECT_EQ(Condition(Run({.lun = 0, .cdb = cdb, .data_in_bytes = 512})), kMediumNotPresent);
  }
  ExpectGood(StartStop(0x00));
  disk.size_after_refresh = absl::NotFoundError("gone");
  EXPECT_EQ(target_.RefreshCapacity(0).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(target_.RefreshCapacity(7).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(UnitTest, TheListOfCommandsIsTheListOfCommands) {
  Attach(0);
  const std::vector<uint8_t> all = ReportOpcodes(0).data_in();
  ASSERT_EQ(LoadBe<uint32_t>(all.data()), all.size() - 4);
  ASSERT_EQ(all.size(), 4 + 8 * CommandEntry::All().size());
  std::set<std::pair<uint8_t, uint16_t>> listed;
  for (size_t at = 4; at < all.size(); at += 8) {
    listed.emplace(all[at], LoadBe<uint16_t>(&all[at + 2]));
    // And one by one the same: length and usage.
    const bool has_action = (all[at + 5] & 1) != 0;
    const TestCommand& one =
        ReportOpcodes(has_action ? 2 : 1, all[at], LoadBe<uint16_t>(&all[at + 2]));
    ExpectGood(one);
    const std::vector<uint8_t> data = one.data_in();
    EXPECT_EQ(data[1], 3);
    EXPECT_EQ(LoadBe<uint16_t>(&data[2]), LoadBe<uint16_t>(&all[at + 6]));
    EXPECT_EQ(data.size(), 4U + LoadBe<uint16_t>(&data[2]));
    EXPECT_EQ(data[4], all[at]);
    EXPECT_EQ(ReportOpcodes(3, all[at], LoadBe<uint16_t>(&all[at + 2])).data_in(), data);
  }
  EXPECT_EQ(listed.size(), CommandEntry::All().size());
  EXPECT_TRUE(listed.contains({0x9E, 0x10}));
  for (int opcode = 0; opcode < 256; ++opcode) {
    const bool known = !CommandEntry::Find(static_cast<uint8_t>(opcode)).empty();
    const bool in_list = listed.lower_bound({static_cast<uint8_t>(opcode), 0}) !=
                         listed.upper_bound({static_cast<uint8_t>(opcode), 0xFFFF});
    EXPECT_EQ(known, in_list) << opcode;
  }
}

TEST_F(UnitTest, TheListOfCommandsWithTimeouts) {
  Attach(0);
  const std::vector<uint8_t> all = ReportOpcodes(0x80).data_in();
  EXPECT_EQ(all.size(), 4 + 20 * CommandEntry::All().size());
  EXPECT_EQ(all[4 + 5], 0x02);
  EXPECT_EQ(LoadBe<uint16_t>(&all[4 + 8]), 10);
  const std::vector<uint8_t> one = ReportOpcodes(0x81, 0x00).data_in();
  EXPECT_EQ(one[1], 0x83);
  EXPECT_THAT(one, SizeIs(4 + 6 + 12));
}

TEST_F(UnitTest, AskingForOneCommand) {
  Attach(0);
  EXPECT_THAT(ReportOpcodes(1, 0xFF).data_in(), ElementsAre(0, 1, 0, 0));
  EXPECT_THAT(ReportOpcodes(2, 0x9E, 0x13).data_in(), ElementsAre(0, 1, 0, 0));
  EXPECT_THAT(ReportOpcodes(3, 0x28, 1).data_in(), ElementsAre(0, 1, 0, 0));
  ExpectInvalidField(ReportOpcodes(1, 0x9E), 2);
  ExpectInvalidField(ReportOpcodes(2, 0x28), 2);
  ExpectInvalidField(ReportOpcodes(4, 0x28), 2);
  disk::FakeDisk::Options image = TestDisk("/images/fixed.img");
  image.geometry.discard_granularity_bytes = 0;
  Attach(1, std::move(image));
  EXPECT_THAT(ReportOpcodes(1, 0x42, 0, 1).data_in(), ElementsAre(0, 1, 0, 0));
  EXPECT_EQ(ReportOpcodes(0, 0, 0, 1).data_in().size(), 4 + 8 * (CommandEntry::All().size() - 1));
}

TEST_F(UnitTest, TaskManagementThatIsSupported) {
  Attach(0);
  const Cdb cdb = Cdb(0xA3, 12).Put8(1, 0x0D).Put32(6, 16);
  EXPECT_THAT(Run({.lun = 0, .cdb = cdb, .data_in_bytes = 16}).data_in(),
              ElementsAre(0xDC, 0x03, 0, 0));
  Cdb extended = cdb;
  const std::vector<uint8_t> data =
      Run({.lun = 0, .cdb = extended.Put8(2, 0x80), .data_in_bytes = 16}).data_in();
  ASSERT_THAT(data, SizeIs(16));
  EXPECT_EQ(data[3], 12);
}

}  // namespace
}  // namespace bothy::scsi
