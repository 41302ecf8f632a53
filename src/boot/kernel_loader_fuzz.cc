// The bytes of a kernel file, opened and loaded into a small guest.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "boot/kernel_image.h"
#include "boot/test_kernels.h"
#include "support/check.h"

namespace {

bothy::memory::GuestMemory& SmallGuest() {
  static const std::unique_ptr<bothy::memory::GuestMemory> memory = [] {
    auto layout = bothy::memory::ComputeLayout(
        {.ram_bytes = 8 * bothy::memory::kMiB, .physical_address_bits = 40});
    CHECK(layout.ok());
    auto created = bothy::memory::GuestMemory::Create({.layout = *layout});
    CHECK(created.ok());
    return std::move(created).value();
  }();
  return *memory;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using bothy::boot::KernelImage;
  const bothy::boot::TestFile file({data, size});
  const absl::StatusOr<KernelImage> kernel = KernelImage::Open(file.path());
  if (!kernel.ok()) return 0;
  for (const bothy::boot::Unpack unpack :
       {bothy::boot::Unpack::kHost, bothy::boot::Unpack::kGuest}) {
    const auto entry = kernel->Load({.command_line = "quiet", .unpack = unpack}, SmallGuest());
    // Whatever was loaded starts inside RAM, above the boot data.
    if (entry.ok()) CHECK(SmallGuest().HostRange(entry->rip, 1).ok() && entry->rip >= 1 << 20);
    CHECK(SmallGuest().DiscardAll().ok());
  }
  return 0;
}
