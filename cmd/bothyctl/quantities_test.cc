#include "cmd/bothyctl/quantities.h"

#include <gtest/gtest.h>

namespace bothy::bothyctl {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(MebibytesTest, ReadsUnitsOfPowersOf1024) {
  EXPECT_EQ(ParseMebibytes("512").value(), 512U);
  EXPECT_EQ(ParseMebibytes("512M").value(), 512U);
  EXPECT_EQ(ParseMebibytes("512mib").value(), 512U);
  EXPECT_EQ(ParseMebibytes("2G").value(), 2048U);
  EXPECT_EQ(ParseMebibytes("2GiB").value(), 2048U);
  EXPECT_EQ(ParseMebibytes("1t").value(), 1048576U);
  // Whether a VM may have none is the server's to say.
  EXPECT_EQ(ParseMebibytes("0").value(), 0U);
  EXPECT_EQ(ParseMebibytes("18446744073709551615").value(), 18446744073709551615U);
}

TEST(MebibytesTest, RefusesWhatItCannotMean) {
  for (const char* text : {"", "M", "-1", "+1", "1.5G", "5MB", "5 M", "5X", "0x10", "1M1", "1e3",
                           "18446744073709551616", "18014398509481984G"}) {
    const auto size = ParseMebibytes(text);
    EXPECT_EQ(size.status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(MebibytesTest, PrintsWholeOnesWithoutADecimal) {
  EXPECT_EQ(FormatMebibytes(0), "0 MiB");
  EXPECT_EQ(FormatMebibytes(uint64_t{512} << 20), "512 MiB");
  EXPECT_EQ(FormatMebibytes((uint64_t{1} << 20) + (1 << 19)), "1.5 MiB");
}

TEST(DurationTest, ReadsUnits) {
  EXPECT_EQ(ParseDuration("5").value(), seconds(5));
  EXPECT_EQ(ParseDuration("5s").value(), seconds(5));
  EXPECT_EQ(ParseDuration("250ms").value(), milliseconds(250));
  EXPECT_EQ(ParseDuration("0.5s").value(), milliseconds(500));
  EXPECT_EQ(ParseDuration("2m").value(), seconds(120));
  EXPECT_EQ(ParseDuration("1h").value(), seconds(3600));
}

TEST(DurationTest, RefusesWhatIsNoPositiveTime) {
  for (const char* text : {"", "0", "0s", "-1", "s", "5x", "1d", "1.2.3", "1e999", "9999999h"}) {
    EXPECT_EQ(ParseDuration(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(QuantitiesTest, ParsesSizesOfDisks) {
  EXPECT_EQ(*ParseBytes("20G"), uint64_t{20} << 30);
  EXPECT_EQ(*ParseBytes("512mib"), uint64_t{512} << 20);
  EXPECT_EQ(*ParseBytes("4k"), 4096U);
  EXPECT_EQ(*ParseBytes("512B"), 512U);
  EXPECT_EQ(*ParseBytes("64T"), uint64_t{64} << 40);
  EXPECT_EQ(*ParseBytes("512"), 512U);
  EXPECT_EQ(*ParseBytes("21474836480"), uint64_t{20} << 30);
  for (const char* text :
       {"", "20", "511", "G", "-1G", "1.5G", "20GB", "1X", "99999999999T", "1bib"}) {
    EXPECT_EQ(ParseBytes(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(QuantitiesTest, FormatsSizesOfDisks) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(uint64_t{20} << 30), "20 GiB");
  EXPECT_EQ(FormatBytes(uint64_t{64} << 40), "64 TiB");
}

}  // namespace
}  // namespace bothy::bothyctl
