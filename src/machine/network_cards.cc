#include "machine/network_cards.h"

#include <algorithm>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "machine/ejection.h"
#include "net/disconnected_backend.h"
#include "net/open_backend.h"
#include "net/user/forward_ports.h"
#include "support/check.h"
#include "support/io_loop.h"
#include "support/log.h"
#include "virtio/net/net_device.h"
#include "virtio/pci/pci_device.h"

namespace bothy::machine {
namespace {

constexpr uint32_t kClassEthernet = 0x02'0000;
// How long an update waits for the guest to have seen its link go: it goes on all the same.
constexpr std::chrono::seconds kGuestLooks{2};

virtio::KernelPath ToKernelPath(NicTuning::Vhost vhost) {
  switch (vhost) {
    case NicTuning::Vhost::kAuto:
      return virtio::KernelPath::kAuto;
    case NicTuning::Vhost::kOff:
      return virtio::KernelPath::kOff;
    case NicTuning::Vhost::kOn:
      return virtio::KernelPath::kOn;
  }
  return virtio::KernelPath::kAuto;
}

// The field of a NICConfig that names the backend.
const char* BackendField(const net::BackendConfig& config) {
  if (std::holds_alternative<net::TapOptions>(config.where)) return "tap.name";
  if (std::holds_alternative<net::SwitchOptions>(config.where)) return "switch_id";
  return "user";
}

// How a card gets from one backend to the other.
enum class Move : uint8_t {
  kNone,        // they are the same, which is as good as new
  kOpenFirst,   // both can be open at a time
  kCloseFirst,  // they can't: they are the same tap, or have ports of the host
};
Move HowToMove(const net::BackendConfig& from, bool link_up, const net::BackendConfig& to) {
  const bool user = std::holds_alternative<net::UserOptions>(from.where) &&
                    std::holds_alternative<net::UserOptions>(to.where);
  const bool same_tap = std::holds_alternative<net::TapOptions>(from.where) && from == to;
  if (!user && !same_tap) return Move::kOpenFirst;
  return from == to && link_up ? Move::kNone : Move::kCloseFirst;
}

// Whether what is to be opened once `held` is closed can be, as far as that can be known before.
absl::Status TryPorts(const net::BackendConfig& wanted, const net::BackendConfig& held) {
  const auto* const next = std::get_if<net::UserOptions>(&wanted.where);
  const auto* const last = std::get_if<net::UserOptions>(&held.where);
  if (next == nullptr || last == nullptr) return absl::OkStatus();
  return net::TryForwards(next->forwards, last->forwards);
}

}  // namespace

// One card. On the thread of `changes`, except Inspect.
class NetworkCards::Card {
 public:
  Card(std::string name, NicConfig nic, const NicTuning& tuning, const DeviceHost& host)
      : name_(std::move(name)), tuning_(tuning), host_(host), nic_(std::move(nic)) {}
  ~Card() {
    if (counted_) host_.units.Remove(function_->registers());
    function_.reset();
    if (io_ == nullptr) return;
    io_->loop().PostAndWait([this] { device_.reset(); });
  }

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const NicConfig& nic() const { return nic_; }
  [[nodiscard]] const std::string& description() const { return description_; }
  [[nodiscard]] pci::RootPort& port() { return *port_; }

  // Opens the backend and shows the card to the guest. After an error it is to be destroyed.
  absl::Status Open() {
    ASSIGN_OR_RETURN(io_, IoThread::Create("io-" + name_, {}));
    absl::Status status;
    io_->loop().PostAndWait([&] { status = OpenDevice(); });
    RETURN_IF_ERROR(status);
    ASSIGN_OR_RETURN(function_, virtio::PciDevice::Create(*device_, kClassEthernet, io_->loop(),
                                                          host_.memory, host_.pci.endpoint_host()));
    host_.units.Add(function_->registers());
    counted_ = true;
    absl::StatusOr<pci::RootPort*> port = host_.pci.FreePort();
    if (!port.ok()) return WithContext(port.status(), "nic_id");
    port_ = *port;
    return host_.pci.Plug(*port_, function_->endpoint());
  }

  // On another network, or, where `nic` names the one that it is on, once more on that.
  void Update(const NicConfig& nic, const std::stop_token& stop, const ChangeDone& done);

  void MemoryChanged() {
    io_->loop().PostAndWait([this] { device_->MemoryChanged(); });
  }

  void Inspect(inspect::Node& node) const {
    {
      const std::lock_guard lock(mutex_);
      node.Value("nic_id", nic_.id.ToString());
      node.Value("nic_name", nic_.name);
      node.Value("mac_address", nic_.mac->ToString());
      node.Value("backend", description_);
    }
    node.Value("rx_bps", tuning_.limits.receive_bps);
    node.Value("tx_bps", tuning_.limits.send_bps);
    function_->Inspect(node);
    node.Elsewhere("card", [this](inspect::Later later) {
      io_->loop().Post([this, later = std::move(later)] {
        later.Describe([this](inspect::Node& card) { device_->Inspect(card); });
      });
    });
  }

 private:
  using OpenedBackend = absl::StatusOr<std::unique_ptr<net::Backend>>;

  // On the card's thread.
  OpenedBackend OpenBackend(const net::BackendConfig& config) {
    // One a vCPU serves best.
    const auto pairs =
        static_cast<uint16_t>(std::clamp<uint32_t>(host_.processors, 1, virtio::kMaxNetQueuePairs));
    net::BackendConfig limited = config;
    limited.limits = tuning_.limits;
    if (auto* const user = std::get_if<net::UserOptions>(&limited.where)) {
      user->host_loopback = tuning_.host_loopback;
    }
    OpenedBackend backend = net::OpenBackend(limited, pairs, io_->loop());
    if (!backend.ok()) return WithContext(backend.status(), BackendField(config));
    return backend;
  }
  // The backend goes before the other comes. If that fails, although what the new one needs was
  // there a moment ago, the first one is opened again.
  absl::Status CloseThenOpen(const net::BackendConfig& config) {
    (void)device_->ExchangeBackend(std::make_unique<net::DisconnectedBackend>());
    OpenedBackend opened = OpenBackend(config);
    absl::Status status = opened.status();
    if (!status.ok()) {
      opened = OpenBackend(*nic_.backend);
      if (!opened.ok()) {
        // It was there a moment ago, and is gone or taken now: the card stays without.
        LogError(name_, absl::StrCat("its backend can't be opened again: ",
                                     std::string(opened.status().message())));
        return status;
      }
    }
    (void)device_->ExchangeBackend(*std::move(opened));
    return status;
  }
  absl::Status OpenDevice() {
    RETURN_IF_ERROR(WithContext(CheckNicTuning(nic_, tuning_), BackendField(*nic_.backend)));
    ASSIGN_OR_RETURN(std::unique_ptr<net::Backend> backend, OpenBackend(*nic_.backend));
    description_ = backend->description();
    virtio::NetDeviceOptions options;
    options.name = name_;
    options.mac = nic_.mac->bytes;
    options.kernel_path = ToKernelPath(tuning_.vhost);
    absl::StatusOr<std::unique_ptr<virtio::NetDevice>> device =
        virtio::NetDevice::Create(options, std::move(backend), host_.memory, io_->loop());
    if (!device.ok()) {
      return WithContext(device.status(), absl::StrCat(BackendField(*nic_.backend), ": ",
                                                       NicTuningField(nic_.id, "vhost"), " is on"));
    }
    device_ = *std::move(device);
    return absl::OkStatus();
  }

  const std::string name_;
  const NicTuning tuning_;
  const DeviceHost& host_;
  mutable std::mutex mutex_;  // guards changes of these two and reads from other threads
  NicConfig nic_;             // address and backend are there
  std::string description_;   // of the backend
  std::unique_ptr<IoThread> io_;
  std::unique_ptr<virtio::NetDevice> device_;  // on the card's thread
  std::unique_ptr<virtio::PciDevice> function_;
  bool counted_ = false;  // among the machine's units
  pci::RootPort* port_ = nullptr;
};

void NetworkCards::Card::Update(const NicConfig& nic, const std::stop_token& stop,
                                const ChangeDone& done) {
  struct Wait {
    explicit Wait(EventLoop& loop) : timer(loop.context()) {}
    asio::steady_timer timer;
    std::optional<std::stop_callback<std::function<void()>>> on_stop;
    std::unique_ptr<net::Backend> next;  // on the card's thread
  };
  NicTuning tuning = tuning_;
  tuning.host_loopback = false;  // for as long as it is on NAT
  if (const absl::Status status = CheckNicTuning(nic, tuning); !status.ok()) {
    return done(WithContext(status, BackendField(*nic.backend)));
  }
  auto wait = std::make_shared<Wait>(host_.changes);
  Move move = Move::kNone;
  absl::Status possible;
  io_->loop().PostAndWait([&] {
    move = HowToMove(*nic_.backend, device_->backend().link_up(), *nic.backend);
    if (move == Move::kCloseFirst) {
      possible = WithContext(TryPorts(*nic.backend, *nic_.backend), BackendField(*nic.backend));
    } else if (move == Move::kOpenFirst) {
      OpenedBackend backend = OpenBackend(*nic.backend);
      possible = backend.status();
      if (backend.ok()) wait->next = *std::move(backend);
    }
  });
  if (!possible.ok()) return done(possible);
  const auto give_up = [this] { io_->loop().Post([this] { device_->StopWaitingForDriver(); }); };
  const auto exchange = [this, nic, wait, move, done] {
    wait->timer.cancel();
    wait->on_stop.reset();
    absl::Status status;
    std::string description;
    io_->loop().PostAndWait([&] {
      if (move == Move::kOpenFirst) (void)device_->ExchangeBackend(std::move(wait->next));
      if (move == Move::kCloseFirst) status = CloseThenOpen(*nic.backend);
      description = device_->backend().description();
      device_->SetLink(true, nullptr);
    });
    {
      const std::lock_guard lock(mutex_);
      description_ = description;
      if (status.ok()) {
        nic_.backend = nic.backend;
        if (!nic.name.empty()) nic_.name = nic.name;
      }
    }
    if (status.ok()) LogInfo(name_, absl::StrCat("now on ", description));
    done(status);
  };
  wait->timer.expires_after(kGuestLooks);
  wait->timer.async_wait([give_up](const asio::error_code& error) {
    if (!error) give_up();
  });
  wait->on_stop.emplace(stop, give_up);
  io_->loop().Post([this, exchange] {
    device_->SetLink(false, [this, exchange] { host_.changes.Post(exchange); });
  });
}

NetworkCards::NetworkCards(const DeviceHost& host, std::map<Guid, NicTuning> tuning)
    : host_(host), tuning_(std::move(tuning)) {}
NetworkCards::~NetworkCards() = default;

absl::Status NetworkCards::Add(const NicConfig& nic) {
  uint32_t number = 0;
  const auto taken = [&] {
    return std::any_of(cards_.begin(), cards_.end(), [&](const auto& entry) {
      return entry.second->name() == absl::StrCat("net", number);
    });
  };
  while (taken()) ++number;
  const auto tuning = tuning_.find(nic.id);
  auto card = std::make_unique<Card>(absl::StrCat("net", number), nic,
                                     tuning == tuning_.end() ? NicTuning{} : tuning->second, host_);
  RETURN_IF_ERROR(card->Open());
  LogInfo(card->name(),
          absl::StrCat(nic.name.empty() ? "" : "\"" + nic.name + "\", ", nic.id.ToString(), ", ",
                       nic.mac->ToString(), ", on ", card->description()));
  const std::lock_guard lock(mutex_);
  cards_[nic.id] = std::move(card);
  return absl::OkStatus();
}

absl::Status NetworkCards::AddConfigured(const std::vector<NicConfig>& nics) {
  for (size_t i = 0; i < nics.size(); ++i) {
    const absl::Status added = Add(nics[i]);
    if (added.ok()) continue;
    return absl::Status(added.code(), absl::StrCat("devices_config.nic_config[", i, "].",
                                                   std::string(added.message())));
  }
  return absl::OkStatus();
}

void NetworkCards::Modify(Change change, const NicConfig& nic, const std::stop_token& stop,
                          const ChangeDone& done) {
  const auto with_field = [done](const absl::Status& status) {
    if (status.ok() || absl::IsCancelled(status)) return done(status);
    done(absl::Status(status.code(), absl::StrCat("nic_config.", std::string(status.message()))));
  };
  const auto at = cards_.find(nic.id);
  if (change == Change::kAdd) {
    if (at != cards_.end()) {
      return with_field(absl::AlreadyExistsError(
          absl::StrCat("nic_id: ", nic.id.ToString(), " is ", at->second->name(), " already")));
    }
    for (const auto& [id, card] : cards_) {
      if (card->nic().mac != nic.mac) continue;
      return with_field(absl::AlreadyExistsError(absl::StrCat(
          "mac_address: ", nic.mac->ToString(), " is that of ", id.ToString(), " already")));
    }
    return with_field(Add(nic));
  }
  if (at == cards_.end()) {
    return with_field(
        absl::NotFoundError(absl::StrCat("nic_id: there is no card ", nic.id.ToString())));
  }
  NicConfig named = nic;
  if (change == Change::kUpdate) {
    // Those may change.
    named.backend.reset();
    named.name.clear();
  }
  if (const absl::Status status = CheckNamesNic(named, at->second->nic()); !status.ok()) {
    return with_field(status);
  }
  if (change == Change::kUpdate) return at->second->Update(nic, stop, with_field);
  Remove(nic.id, stop, done);
}

void NetworkCards::Remove(const Guid& id, const std::stop_token& stop, const ChangeDone& done) {
  Eject(host_, cards_.at(id)->port(), "nic_config.nic_id", "the card", stop,
        [this, id, done](const absl::Status& status) {
          if (!status.ok()) return done(status);
          std::unique_ptr<Card> card;
          {
            const std::lock_guard lock(mutex_);
            card = std::move(cards_.at(id));
            cards_.erase(id);
          }
          card.reset();
          done(absl::OkStatus());
        });
}

void NetworkCards::MemoryChanged() {
  for (auto& [id, card] : cards_) card->MemoryChanged();
}

void NetworkCards::Inspect(inspect::Node& node) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, card] : cards_) node.Child(card->name(), *card);
}

}  // namespace bothy::machine
