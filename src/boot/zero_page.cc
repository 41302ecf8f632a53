#include "boot/zero_page.h"

#include "boot/bzimage.h"
#include "support/check.h"

namespace bothy::boot {
namespace {

constexpr uint8_t kLoaderUndefined = 0xFF;  // boot.rst: a loader without an assigned id
constexpr uint16_t kBootFlag = 0xAA55;
constexpr uint16_t kVersion = 0x020F;
constexpr uint32_t kKernelAlignment = 0x100'0000;

}  // namespace

boot_params BuildZeroPage(const ZeroPageOptions& options) {
  boot_params params{};
  params.hdr = options.header;
  if (params.hdr.header != kSetupHeaderMagic) {
    params.hdr.header = kSetupHeaderMagic;
    params.hdr.boot_flag = kBootFlag;
    params.hdr.version = kVersion;
    params.hdr.loadflags = LOADED_HIGH;
    params.hdr.kernel_alignment = kKernelAlignment;
  }
  params.hdr.type_of_loader = kLoaderUndefined;
  params.hdr.setup_data = 0;
  params.hdr.cmd_line_ptr = static_cast<uint32_t>(options.command_line_gpa);
  params.ext_cmd_line_ptr = static_cast<uint32_t>(options.command_line_gpa >> 32);
  if (options.initrd_bytes != 0) {
    params.hdr.ramdisk_image = static_cast<uint32_t>(options.initrd_gpa);
    params.ext_ramdisk_image = static_cast<uint32_t>(options.initrd_gpa >> 32);
    params.hdr.ramdisk_size = static_cast<uint32_t>(options.initrd_bytes);
    params.ext_ramdisk_size = static_cast<uint32_t>(options.initrd_bytes >> 32);
  }
  params.acpi_rsdp_addr = options.rsdp_gpa;

  CHECK(options.memory_map.size() <= E820_MAX_ENTRIES_ZEROPAGE);
  for (const MemoryMapEntry& entry : options.memory_map) {
    params.e820_table[params.e820_entries++] = {.addr = entry.range.base,
                                                .size = entry.range.size,
                                                .type = static_cast<uint32_t>(entry.type)};
  }
  return params;
}

}  // namespace bothy::boot
