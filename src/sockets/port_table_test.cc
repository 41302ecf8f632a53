#include "sockets/port_table.h"

#include <gtest/gtest.h>

namespace bothy::sockets {
namespace {

TEST(PortTableTest, KeepsAPathForEachPort) {
  PortTable table;
  EXPECT_TRUE(table.Add(1, "/a").ok());
  EXPECT_TRUE(table.Add(0xFFFFFFFF, "/b").ok());
  EXPECT_EQ(table.PathFor(1), "/a");
  EXPECT_EQ(table.PathFor(0xFFFFFFFF), "/b");
  EXPECT_EQ(table.PathFor(2), std::nullopt);
}

TEST(PortTableTest, AddsAPortOnce) {
  PortTable table;
  EXPECT_TRUE(table.Add(1, "/a").ok());
  EXPECT_EQ(table.Add(1, "/b").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(table.PathFor(1), "/a");
}

TEST(PortTableTest, ChangesAndRemovesWhatIsThere) {
  PortTable table;
  EXPECT_EQ(table.Update(1, "/b").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(table.Remove(1).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(table.Add(1, "/a").ok());
  EXPECT_TRUE(table.Update(1, "/b").ok());
  EXPECT_EQ(table.PathFor(1), "/b");
  EXPECT_TRUE(table.Remove(1).ok());
  EXPECT_EQ(table.PathFor(1), std::nullopt);
  EXPECT_TRUE(table.Add(1, "/c").ok());
}

TEST(PortTableTest, OtherPortsGoBesideTheBasePath) {
  PortTable table("/run/vm.vsock");
  EXPECT_EQ(table.PathFor(52), "/run/vm.vsock_52");
  EXPECT_TRUE(table.Add(52, "/agent").ok());
  EXPECT_EQ(table.PathFor(52), "/agent");
  EXPECT_TRUE(table.Remove(52).ok());
  EXPECT_EQ(table.PathFor(52), "/run/vm.vsock_52");
}

}  // namespace
}  // namespace bothy::sockets
