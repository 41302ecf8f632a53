#include "memory/layout.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace bothy::memory {
namespace {

constexpr uint64_t kDefaultLowGap = 1 * kGiB;
constexpr uint64_t kMinLowGap = 512 * kMiB;
constexpr uint64_t kMaxLowGap = 3072 * kMiB;
constexpr uint64_t kDefaultHighWindow = 64 * kGiB;
constexpr uint64_t kWindowAlignment = 1 * kGiB;

constexpr uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

absl::Status Invalid(const std::string& message) { return absl::InvalidArgumentError(message); }

}  // namespace

absl::StatusOr<Layout> ComputeLayout(const LayoutOptions& options) {
  const uint64_t address_limit = uint64_t{1} << options.physical_address_bits;
  if (options.ram_bytes < kMiB) return Invalid("memory_mb: must be at least 1");
  if (options.ram_bytes % kPageSize != 0) return Invalid("memory_mb: must be whole pages");
  if (options.ram_bytes >= address_limit) {
    return absl::ResourceExhaustedError(
        absl::StrCat("memory_mb: ", options.ram_bytes / kMiB, " is beyond the ",
                     options.physical_address_bits, "-bit physical addresses of this CPU"));
  }

  const uint64_t gap =
      options.low_mmio_gap_bytes == 0 ? kDefaultLowGap : options.low_mmio_gap_bytes;
  if (gap < kMinLowGap || gap > kMaxLowGap || gap % kMiB != 0) {
    return Invalid(absl::StrCat("low_mmio_gap_in_mb: ", gap / kMiB, " is out of range 512..3072"));
  }

  Layout layout;
  layout.ram_bytes = options.ram_bytes;
  layout.low_mmio = {k4GiB - gap, gap};
  layout.ecam = {kEcamBase, options.pci_buses * kEcamBusSize};
  if (layout.low_mmio.base < kEcamBase) {
    layout.pci_mmio32.push_back({layout.low_mmio.base, kEcamBase - layout.low_mmio.base});
  }
  constexpr uint64_t kAboveEcam = kEcamBase + kEcamReserved;
  layout.pci_mmio32.push_back({kAboveEcam, kIoApicBase - kAboveEcam});

  const uint64_t low_ram = std::min(options.ram_bytes, layout.low_mmio.base);
  const uint64_t max_ram = std::max(options.ram_bytes, options.max_ram_bytes);
  const uint64_t max_high_ram = max_ram - std::min(max_ram, layout.low_mmio.base);

  // The 64-bit window.
  const uint64_t base = options.high_mmio_base_bytes != 0
                            ? options.high_mmio_base_bytes
                            : AlignUp(k4GiB + max_high_ram, kWindowAlignment);
  if (base < k4GiB) {
    return Invalid(absl::StrCat("high_mmio_base_in_mb: ", base / kMiB,
                                " is inside the first 4 GiB; it must be at least 4096"));
  }
  if (base >= address_limit) {
    if (options.high_mmio_base_bytes == 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("memory_mb: ", options.ram_bytes / kMiB,
                       " leaves no room for a 64-bit MMIO window in the ",
                       options.physical_address_bits, "-bit physical addresses of this CPU"));
    }
    return Invalid(absl::StrCat("high_mmio_base_in_mb: ", base / kMiB,
                                " is beyond the CPU's physical address limit of ",
                                address_limit / kMiB, " MiB"));
  }
  uint64_t size = options.high_mmio_gap_bytes;
  if (size == 0) size = std::min(kDefaultHighWindow, address_limit - base);
  if (size > address_limit - base) {
    return Invalid(absl::StrCat(
        "high_mmio_gap_in_mb: a window of ", size / kMiB, " MiB at ", base / kMiB,
        " MiB reaches beyond the CPU's physical address limit of ", address_limit / kMiB, " MiB"));
  }
  layout.pci_mmio64 = {base, size};

  layout.ram.push_back({{0, low_ram}, 0});
  uint64_t left = options.ram_bytes - low_ram;
  uint64_t offset = low_ram;
  const uint64_t below = std::min(left, base - k4GiB);
  if (below > 0) {
    layout.ram.push_back({{k4GiB, below}, offset});
    offset += below;
    left -= below;
  }
  if (left > 0) {
    const uint64_t above = layout.pci_mmio64.end();
    if (left > address_limit - above) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "memory_mb: ", options.ram_bytes / kMiB, " doesn't fit around the 64-bit MMIO window at ",
          base / kMiB, " MiB below the CPU's physical address limit of ", address_limit / kMiB,
          " MiB"));
    }
    layout.ram.push_back({{above, left}, offset});
  }
  // RAM that can be plugged later and doesn't fit below the window lies right behind it.
  const uint64_t ram_above = max_high_ram - std::min(max_high_ram, base - k4GiB);
  const uint64_t top =
      std::min(address_limit, AlignUp(layout.pci_mmio64.end() + ram_above, kWindowAlignment));
  layout.device_memory = {top, address_limit - top};
  return layout;
}

void Layout::Inspect(inspect::Node& node) const {
  const auto range = [](inspect::Node& parent, std::string_view name, const AddressRange& of) {
    parent.Child(name, [&of](inspect::Node& child) {
      child.Address("base", of.base);
      child.Value("size_bytes", of.size);
    });
  };
  node.Child("ram", [this, range](inspect::Node& ranges) {
    for (size_t i = 0; i < ram.size(); ++i) range(ranges, std::to_string(i), ram[i].guest);
  });
  range(node, "low_mmio", low_mmio);
  range(node, "ecam", ecam);
  node.Child("pci_mmio32", [this, range](inspect::Node& ranges) {
    for (size_t i = 0; i < pci_mmio32.size(); ++i) {
      range(ranges, std::to_string(i), pci_mmio32[i]);
    }
  });
  range(node, "pci_mmio64", pci_mmio64);
  range(node, "device_memory", device_memory);
}

}  // namespace bothy::memory
