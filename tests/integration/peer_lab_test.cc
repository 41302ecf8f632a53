// Who may speak to a server. Needs root, to be somebody else for a moment; the lab has it.
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/integration/server_test.h"

namespace bothy::integration {
namespace {

constexpr uid_t kStranger = 65534;

class PeerLabTest : public ServerTest {
 protected:
  // What a stranger's first call gets, once he has found the way to the socket.
  absl::Status StrangersCall() {
    EXPECT_EQ(::chmod(folder_.path().c_str(), 0755), 0);
    // The system call itself: of this thread alone, unlike libc's.
    EXPECT_EQ(::syscall(SYS_setresuid, -1, kStranger, -1), 0);
    auto connection = ttrpc::Client::Connect(SocketPath());
    EXPECT_EQ(::syscall(SYS_setresuid, -1, 0, -1), 0);
    if (!connection.ok()) return connection.status();
    return wire::VMClient(**connection).CapabilitiesVM({}).status();
  }
};

TEST_F(PeerLabTest, AStrangerIsToldThatHeMayNot) {
  StartServer();
  EXPECT_THAT(StrangersCall(), Fails(absl::StatusCode::kPermissionDenied, testing::_))
      << "the socket's mode";
  // Beyond it, for the server's own look at its peers.
  EXPECT_EQ(::chmod(SocketPath().c_str(), 0666), 0);
  EXPECT_THAT(StrangersCall(),
              Fails(absl::StatusCode::kPermissionDenied, testing::HasSubstr("65534")));
  EXPECT_TRUE(vm_->Capabilities().ok());
}

TEST_F(PeerLabTest, AnAllowedUserMay) {
  StartServer({"--allow-uid", "1", "--allow-uid", "65534"});
  EXPECT_THAT(StrangersCall(), IsOk());
}

TEST_F(PeerLabTest, AStrangerCannotConnectBesideAnAllowedUser) {
  StartServer({"--allow-uid", "1"});
  EXPECT_THAT(StrangersCall(), Fails(absl::StatusCode::kPermissionDenied, testing::_));
}

}  // namespace
}  // namespace bothy::integration
