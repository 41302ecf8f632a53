#include "machine/ejection.h"

#include <asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bothy::machine {
namespace {

// How long a removal waits for the guest to let go when the caller has set no deadline: a guest
// that is pressed thinks about it for five seconds (pci/root_port.h).
constexpr std::chrono::seconds kGuestLetsGo{30};

struct Wait {
  explicit Wait(EventLoop& loop) : timer(loop.context()) {}
  asio::steady_timer timer;
  std::optional<std::stop_callback<std::function<void()>>> on_stop;
};

}  // namespace

void Eject(const DeviceHost& host, pci::RootPort& port, const std::string& field,
           const std::string& stays, const std::stop_token& stop,
           const std::function<void(absl::Status)>& done) {
  EventLoop& changes = host.changes;
  auto wait = std::make_shared<Wait>(changes);
  const auto removed = [&changes, wait, done](const absl::Status& status) {
    changes.Post([wait, done, status] {
      wait->timer.cancel();
      wait->on_stop.reset();
      done(status);
    });
  };
  if (const absl::Status asked = port.RequestRemoval(removed); !asked.ok()) return done(asked);
  wait->timer.expires_after(kGuestLetsGo);
  wait->timer.async_wait([&port, field, stays](const asio::error_code& error) {
    if (error) return;
    port.CancelRemoval(
        absl::DeadlineExceededError(absl::StrCat(field, ": the guest hasn't let go of it within ",
                                                 kGuestLetsGo.count(), " s; ", stays, " stays")));
  });
  wait->on_stop.emplace(stop, [&changes, &port, stays] {
    changes.Post([&port, stays] {
      port.CancelRemoval(
          absl::CancelledError(absl::StrCat("the removal was given up; ", stays, " stays")));
    });
  });
}

}  // namespace bothy::machine
