// A hostile guest of user-mode networking: any frames, in any number of pieces, taken or not.
//
// In a network namespace with nothing in it but its own loopback interface, so that nothing reaches
// anybody: what gets through libslirp ends there. Besides crashes (an assertion of libslirp's is
// one) it looks for frames that are longer than they may be.
//
// An input is a series of operations: a byte that says which, then its operands.
#include <sched.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "net/ethernet.h"
#include "net/user/user_backend.h"
#include "support/check.h"
#include "support/endian.h"
#include "support/io_loop.h"

namespace bothy::net {
namespace {

// Once, before there is a second thread.
const bool isolated = [] {
  CHECK(::unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 || ::unshare(CLONE_NEWNET) == 0);
  return true;
}();

class Input {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  uint8_t Byte() {
    if (bytes_.empty()) return 0;
    const uint8_t byte = bytes_[0];
    bytes_ = bytes_.subspan(1);
    return byte;
  }
  std::span<const uint8_t> Take(size_t size) {
    const std::span<const uint8_t> taken = bytes_.first(std::min(size, bytes_.size()));
    bytes_ = bytes_.subspan(taken.size());
    return taken;
  }

 private:
  std::span<const uint8_t> bytes_;
};

// Right checksums, without which hardly anything gets anywhere (RFC 1071).
uint64_t Sum(std::span<const uint8_t> bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i) sum += uint64_t{bytes[i]} << (i % 2 == 0 ? 8 : 0);
  return sum;
}
uint16_t Fold(uint64_t sum) {
  while (sum > 0xFFFF) sum = (sum & 0xFFFF) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}
void FixSegment(uint8_t protocol, std::span<const uint8_t> addresses, std::span<uint8_t> segment) {
  size_t at = 0;
  switch (protocol) {
    case 6:
      at = 16;
      break;
    case 17:
      at = 6;
      break;
    case 58:
      at = 2;
      break;
    default:
      return;
  }
  if (segment.size() < at + 2) return;
  StoreBe<uint16_t>(segment.data() + at, 0);
  StoreBe<uint16_t>(segment.data() + at,
                    Fold(Sum(addresses) + protocol + segment.size() + Sum(segment)));
}
void FixChecksums(std::span<uint8_t> frame) {
  if (frame.size() < kEthernetHeaderBytes) return;
  const std::span<uint8_t> ip = frame.subspan(kEthernetHeaderBytes);
  const auto type = LoadBe<uint16_t>(frame.data() + kEthernetTypeOffset);
  if (type == kEthernetIpv4 && ip.size() >= 20) {
    const size_t header = std::clamp<size_t>(4 * (ip[0] & 0xFU), 20, ip.size());
    const std::span<uint8_t> segment = ip.subspan(
        header,
        std::min<size_t>(ip.size() - header,
                         std::max<size_t>(LoadBe<uint16_t>(ip.data() + 2), header) - header));
    if (ip[9] == 1 && segment.size() >= 4) {
      StoreBe<uint16_t>(segment.data() + 2, 0);
      StoreBe<uint16_t>(segment.data() + 2, Fold(Sum(segment)));
    } else {
      FixSegment(ip[9], ip.subspan(12, 8), segment);
    }
    StoreBe<uint16_t>(ip.data() + 10, 0);
    StoreBe<uint16_t>(ip.data() + 10, Fold(Sum(ip.first(header))));
  } else if (type == kEthernetIpv6 && ip.size() >= 40) {
    FixSegment(ip[6], ip.subspan(8, 32),
               ip.subspan(40, std::min<size_t>(ip.size() - 40, LoadBe<uint16_t>(ip.data() + 4))));
  }
}

void RunLoop(IoLoop& loop) {
  // Once around.
  bool done = false;
  loop.Post([&done] { done = true; });
  loop.RunUntil([&done] { return done; });
}

void Fuzz(Input input) {
  auto loop = IoLoop::Create({.engine = IoLoop::Engine::kThreadPool, .pool_threads = 1});
  CHECK_OK(loop.status());
  UserOptions options;
  options.mtu = (input.Byte() & 1) != 0 ? 1500 : 65'520;
  options.host_loopback = true;
  auto backend = OpenUserBackend(options, **loop);
  CHECK_OK(backend.status());
  FrameQueue& queue = (*backend)->queue(0);
  bool readable = true;
  queue.SetCallbacks([&readable] { readable = true; }, nullptr);
  std::vector<uint8_t> last;
  while (!input.empty()) {
    const uint8_t operation = input.Byte();
    switch (operation % 4) {
      case 0:
      case 1: {  // a frame, perhaps with right checksums, and perhaps the last one changed
        std::vector<uint8_t> frame(kHeaderBytes);
        const size_t size = input.Byte() + ((operation & 0x10) != 0 ? 256U * input.Byte() : 0U);
        const std::span<const uint8_t> bytes = input.Take(size);
        if ((operation & 0x20) != 0) {
          frame = last;
          const size_t at = kHeaderBytes + input.Byte();
          for (size_t i = 0; i < bytes.size() && at + i < frame.size(); ++i)
            frame[at + i] = bytes[i];
        } else {
          frame.insert(frame.end(), bytes.begin(), bytes.end());
          if ((operation & 0x80) != 0) frame.resize(kHeaderBytes + size);
        }
        if (frame.size() < kHeaderBytes) break;
        if ((operation & 0x40) != 0) FixChecksums(std::span(frame).subspan(kHeaderBytes));
        last = frame;
        const size_t cut = std::min<size_t>(frame.size(), kHeaderBytes + (operation >> 4));
        const std::array<iovec, 2> buffers = {iovec{frame.data(), cut},
                                              iovec{frame.data() + cut, frame.size() - cut}};
        (void)queue.Send(buffers);
        break;
      }
      case 2: {
        std::vector<uint8_t> into(size_t{64} << (operation >> 4) % 12);
        const iovec buffer = {into.data(), into.size()};
        const auto bytes = queue.Receive(std::span(&buffer, 1));
        CHECK(bytes.ok() && *bytes <= into.size());
        CHECK(*bytes <= kHeaderBytes + kEthernetHeaderBytes + options.mtu);
        break;
      }
      default:
        RunLoop(**loop);
        break;
    }
  }
  RunLoop(**loop);
  queue.SetCallbacks(nullptr, nullptr);
  backend = absl::CancelledError();
  RunLoop(**loop);
}

}  // namespace
}  // namespace bothy::net

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bothy::net::Fuzz(bothy::net::Input(std::span(data, size)));
  return 0;
}
