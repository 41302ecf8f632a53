#include "scsi/sense.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scsi/disk_errors.h"

namespace bothy::scsi {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using Format = EncodedSense::Format;

TEST(SenseTest, FixedFormat) {
  EncodedSense sense;
  sense.Encode({.condition = kReadError, .information = 0x12345678}, Format::kFixed);
  EXPECT_THAT(sense.bytes(),
              ElementsAre(0xF0, 0, 3, 0x12, 0x34, 0x56, 0x78, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0));
}

TEST(SenseTest, FixedFormatLeavesOutInformationOfMoreThan32Bits) {
  EncodedSense sense;
  sense.Encode({.condition = kWriteError, .information = 0x1'0000'0000}, Format::kFixed);
  EXPECT_THAT(sense.bytes(),
              ElementsAre(0x70, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0C, 0, 0, 0, 0, 0));
}

TEST(SenseTest, FixedFormatPointsAtAFieldOrABit) {
  EncodedSense sense;
  SenseData data = {.condition = kInvalidFieldInCdb,
                    .field = FieldPointer{FieldPointer::Place::kCdb, 2, {}}};
  sense.Encode(data, Format::kFixed);
  EXPECT_THAT(sense.bytes().subspan(15), ElementsAre(0xC0, 0, 2));
  data.field = FieldPointer{FieldPointer::Place::kParameters, 0x0123, 5};
  sense.Encode(data, Format::kFixed);
  EXPECT_THAT(sense.bytes().subspan(15), ElementsAre(0x8D, 0x01, 0x23));
}

TEST(SenseTest, DescriptorFormat) {
  EncodedSense sense;
  sense.Encode({.condition = kStopped}, Format::kDescriptor);
  EXPECT_THAT(sense.bytes(), ElementsAre(0x72, 2, 4, 2, 0, 0, 0, 0));
  sense.Encode({.condition = kMiscompareDuringVerify,
                .field = FieldPointer{FieldPointer::Place::kCdb, 1, 7},
                .information = 0x0102030405060708},
               Format::kDescriptor);
  EXPECT_THAT(sense.bytes(), ElementsAreArray({0x72, 0x0E, 0x1D, 0,    0,    0, 0, 20,  //
                                               0x00, 0x0A, 0x80, 0x00, 1,    2, 3, 4,   //
                                               5,    6,    7,    8,                     //
                                               0x02, 0x06, 0,    0,    0xCF, 0, 1, 0}));
}

TEST(SenseTest, WhatDisksSayAsConditions) {
  using disk::Operation;
  const auto of = [](Operation operation, absl::StatusCode code) {
    return ConditionOf(operation, absl::Status(code, "x"));
  };
  EXPECT_EQ(of(Operation::kWrite, absl::StatusCode::kResourceExhausted), kSpaceAllocationFailed);
  EXPECT_EQ(of(Operation::kFlush, absl::StatusCode::kResourceExhausted), kSpaceAllocationFailed);
  EXPECT_EQ(of(Operation::kRead, absl::StatusCode::kResourceExhausted), kInternalTargetFailure);
  EXPECT_EQ(of(Operation::kWriteZeroes, absl::StatusCode::kPermissionDenied), kWriteProtected);
  EXPECT_EQ(of(Operation::kRead, absl::StatusCode::kDataLoss), kReadError);
  EXPECT_EQ(of(Operation::kRead, absl::StatusCode::kOutOfRange), kReadError);
  EXPECT_EQ(of(Operation::kWrite, absl::StatusCode::kInternal), kWriteError);
  EXPECT_EQ(of(Operation::kFlush, absl::StatusCode::kDataLoss), kWriteError);
  EXPECT_EQ(of(Operation::kRead, absl::StatusCode::kUnimplemented), kInternalTargetFailure);
  EXPECT_EQ(of(Operation::kRead, absl::StatusCode::kUnavailable), kCommandAborted);
}

}  // namespace
}  // namespace bothy::scsi
