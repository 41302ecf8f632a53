// HostStream: the host's end of one relayed connection, a Unix stream socket that doesn't block.
//
// What the guest sends goes to the socket straight from the buffers it lies in; what the socket
// doesn't take at once is kept, and how much that may be is its owner's to bound, by the window
// that it gives the guest. What the socket has is read straight into the owner's buffers, when the
// owner wants it. Both directions end on their own.
//
// On the thread of `loop`. Callbacks come from the loop, never from inside a call, and may destroy
// the stream.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "support/io_loop.h"
#include "support/unique_fd.h"

namespace bothy::sockets {

class HostStream {
 public:
  struct Callbacks {
    // As AwaitReadable asked: there is something to read, or the end.
    std::function<void()> on_readable;
    // The socket has taken some of what is kept, or will take nothing any more (broken()).
    std::function<void()> on_written;
  };

  // `socket` is connected. `loop` outlives the stream.
  HostStream(UniqueFd socket, IoLoop& loop, Callbacks callbacks);
  // Closes the socket; what is kept is lost.
  ~HostStream() = default;
  HostStream(const HostStream&) = delete;
  HostStream& operator=(const HostStream&) = delete;

  // Other ones from now on.
  void SetCallbacks(Callbacks callbacks) { callbacks_ = std::move(callbacks); }

  // Sends, or keeps what can't be sent now. Not after EndWriting.
  void Write(std::span<const iovec> bytes);
  // Bytes that the socket has taken in all, of those that were given to Write.
  [[nodiscard]] uint64_t written() const { return written_; }
  // Bytes that it hasn't.
  [[nodiscard]] size_t kept() const { return kept_.size() - kept_from_; }
  // No more comes behind what was written: its reader sees the end when it has read everything.
  void EndWriting();
  // Whether the peer takes nothing any more: it is gone.
  [[nodiscard]] bool broken() const { return broken_; }

  struct ReadResult {
    enum class What : uint8_t {
      kBytes,
      kNothing,  // for now
      kEnd,      // nothing comes any more; what is written may still be read
      kBroken,   // the peer is gone, maybe with bytes unread
    };
    What what = What::kNothing;
    size_t bytes = 0;  // kBytes: more than none
  };
  // Into so many buffers, at most IOV_MAX.
  [[nodiscard]] ReadResult Read(std::span<const iovec> into);
  // Calls on_readable once.
  void AwaitReadable();
  // What the peer writes from now on is its error.
  void EndReading();
  // Whether the peer has closed its socket: neither direction goes on.
  [[nodiscard]] bool PeerHasClosed() const;

 private:
  // As much as the socket takes of `bytes`; sets broken_.
  size_t Send(std::span<const iovec> bytes);
  void Keep(std::span<const iovec> bytes, size_t skip);
  void OnWritable();
  void Broken();

  UniqueFd socket_;
  Callbacks callbacks_;
  uint64_t written_ = 0;
  std::vector<uint8_t> kept_;
  size_t kept_from_ = 0;  // of kept_, where what wasn't sent begins
  bool ends_ = false;     // behind what is kept
  bool broken_ = false;
  std::unique_ptr<IoLoop::Readiness> readiness_;  // goes before the socket
};

}  // namespace bothy::sockets
