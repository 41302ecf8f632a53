// KernelImage and Initrd: direct boot of a Linux bzImage or an ELF vmlinux.
//
// Two steps, so that a bad file is refused before anything of the host is touched and the slow part
// can overlap other set-up:
//
//   ASSIGN_OR_RETURN(KernelImage kernel, KernelImage::Open(path));        // headers only
//   LoadRequest request{.command_line = "console=ttyS0", .rsdp_gpa = rsdp};
//   RETURN_IF_ERROR(kernel.Check(request, layout));                       // arithmetic only
//   ASSIGN_OR_RETURN(auto registers, kernel.Load(request, memory));       // fills guest RAM
//
// Load can be called again after a machine reset. It keeps nothing: what a decoder needs is freed
// when it returns. A bzImage's payload is unpacked on the host straight to where its ELF segments
// run; a vmlinux is read straight there. Error messages begin with the field of DirectBoot at fault
// ("direct_boot.kernel_path: /boot/vmlinuz: ..."):
//
//   InvalidArgument    not a kernel we can boot, corrupt, truncated, made for addresses that can't
//                      be RAM; not a regular file; command line too long or with a NUL
//   NotFound, PermissionDenied   as open(2) says
//   ResourceExhausted  kernel or initrd don't fit in this guest's RAM; no memory to unpack
//
// Open'ed objects are immutable: Check and Load may run on any thread, one at a time per
// GuestMemory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "boot/boot_file.h"
#include "boot/bzimage.h"
#include "boot/cpu_entry.h"
#include "boot/elf_image.h"
#include "hypervisor/vm.h"
#include "memory/guest_memory.h"
#include "memory/layout.h"
#include "support/status.h"

namespace bothy::boot {

class Initrd {
 public:
  static absl::StatusOr<Initrd> Open(const std::string& path);
  [[nodiscard]] const BootFile& file() const { return file_; }

 private:
  explicit Initrd(BootFile file) : file_(std::move(file)) {}
  BootFile file_;
};

// Who unpacks a bzImage's payload. A vmlinux isn't packed, so either means the same.
enum class Unpack : uint8_t {
  kHost,   // we do, at the address it was linked for
  kGuest,  // its own code does, and picks the address (KASLR)
};

struct LoadRequest {
  const Initrd* initrd = nullptr;
  std::string_view command_line = {};
  uint64_t rsdp_gpa = 0;  // where acpi/ put the RSDP; 0: no ACPI
  Unpack unpack = Unpack::kHost;
  // Back what a booting Linux touches (working_set.h) with huge pages, where the host has them.
  bool huge_pages = false;
};

class KernelImage {
 public:
  // Opens `path` and checks its headers.
  static absl::StatusOr<KernelImage> Open(const std::string& path);

  // Everything about `request` that can be told without guest RAM: command line, sizes. Load does
  // it again.
  [[nodiscard]] absl::Status Check(const LoadRequest& request, const memory::Layout& layout) const;

  // Puts kernel, initrd, command line and boot data into `memory` and returns what the boot CPU
  // starts with, for Vcpu::SetEntry. `memory` reads as zero where the
  // guest hasn't been yet (new, or after DiscardAll): zeroes aren't written. `memory` is in an
  // unspecified state after an error.
  absl::StatusOr<hypervisor::EntryRegisters> Load(const LoadRequest& request,
                                                  memory::GuestMemory& memory) const;

  [[nodiscard]] bool is_bzimage() const { return bzimage_.has_value(); }
  // How long a command line this kernel keeps, in bytes without the NUL.
  [[nodiscard]] uint64_t max_command_line() const;

 private:
  explicit KernelImage(BootFile file) : file_(std::move(file)) {}
  absl::Status ReadHeaders();
  absl::Status ReadElfHeaders();

  // What the kernel occupies once it is loaded, and where it starts.
  struct Placement {
    memory::AddressRange span;
    uint64_t entry = 0;
    EntryMode mode = EntryMode::kLong64;
  };
  absl::Status CheckCommandLine(std::string_view command_line) const;
  // What all parts of one Load share.
  struct Loading;
  // RAM that this kernel is about to touch.
  [[nodiscard]] std::vector<memory::AddressRange> WorkingSet(const LoadRequest& request,
                                                             const memory::Layout& layout) const;
  absl::StatusOr<Placement> LoadKernel(Unpack unpack, Loading& loading) const;
  absl::StatusOr<Placement> LoadPacked(Loading& loading) const;
  absl::StatusOr<Placement> LoadSelfUnpacking(Loading& loading) const;
  absl::StatusOr<Placement> LoadElf(Loading& loading) const;
  // Returns where it is.
  absl::StatusOr<memory::AddressRange> LoadInitrd(const Initrd& initrd, const Placement& kernel,
                                                  Loading& loading) const;

  BootFile file_;
  // One of the two.
  std::optional<BzImage> bzimage_;
  std::optional<ElfImage> elf_;
  std::optional<uint32_t> pvh_entry_;  // of elf_
};

}  // namespace bothy::boot
