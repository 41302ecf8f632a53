// ConnectListener: the socket by which programs of the host reach ports of the guest
// (connect_line.h says how).
//
// It accepts, waits for each one's line, and hands over sockets of which nothing behind the line
// has been read. A program that says nothing keeps nobody else waiting: when too many do, the one
// that has been silent for longest is closed. On the thread of the loop.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>

#include "inspect/node.h"
#include "support/io_loop.h"
#include "support/status.h"
#include "support/unique_fd.h"
#include "support/unix_socket.h"

namespace bothy::sockets {

class ConnectListener {
 public:
  static constexpr size_t kMostSilent = 1024;
  // Somebody wants `port` of the guest; `socket` doesn't block.
  using OnConnect = std::function<void(uint32_t port, UniqueFd socket)>;

  // Listens on `path`, replacing a stale socket. Errors as of UnixListener::Create, but
  // FailedPrecondition where somebody listens there. `loop` outlives the object.
  static absl::StatusOr<std::unique_ptr<ConnectListener>> Create(const std::string& path,
                                                                 IoLoop& loop,
                                                                 OnConnect on_connect);
  // Removes the path and closes those who haven't said what they want.
  ~ConnectListener();
  ConnectListener(const ConnectListener&) = delete;
  ConnectListener& operator=(const ConnectListener&) = delete;

  void Inspect(inspect::Node& node) const;

 private:
  struct Silent {
    UniqueFd socket;
    std::string said = {};                                   // the beginning of a line
    std::unique_ptr<IoLoop::Readiness> readiness = nullptr;  // goes before the socket
  };

  ConnectListener(IoLoop& loop, UnixListener listener, OnConnect on_connect);
  void Accept();
  // Takes a connection off the queue while the process has no descriptor for it.
  bool RefuseOne();
  void OnReadable(std::list<Silent>::iterator silent);

  IoLoop& loop_;
  OnConnect on_connect_;
  SocketFile file_;
  UniqueFd socket_;
  UniqueFd spare_;  // given up for a moment to close a connection that can't be had
  std::unique_ptr<IoLoop::Readiness> readiness_;
  std::list<Silent> silent_;  // the oldest first
  uint64_t accepted_ = 0;
  uint64_t malformed_ = 0;
  uint64_t refused_ = 0;  // no descriptors, or silent for too long
};

}  // namespace bothy::sockets
