#include "boot/pvh.h"

#include "boot/low_memory_map.h"
#include "support/check.h"

namespace bothy::boot {
namespace {

constexpr uint32_t kMagic = 0x336E'C578;
constexpr uint32_t kVersion = 1;  // the first with a memory map

struct StartInfo {
  uint32_t magic;
  uint32_t version;
  uint32_t flags;
  uint32_t module_count;
  uint64_t module_list_gpa;
  uint64_t command_line_gpa;
  uint64_t rsdp_gpa;
  uint64_t memory_map_gpa;
  uint32_t memory_map_entries;
  uint32_t reserved;
};
static_assert(sizeof(StartInfo) == 56);

struct Module {
  uint64_t gpa;
  uint64_t bytes;
  uint64_t command_line_gpa;
  uint64_t reserved;
};
static_assert(sizeof(Module) == 32);

struct MapEntry {
  uint64_t base;
  uint64_t bytes;
  uint32_t type;
  uint32_t reserved;
};
static_assert(sizeof(MapEntry) == 24);

constexpr uint64_t kModuleList = kPvhStartInfo + 0x80;
constexpr uint64_t kMemoryMap = kPvhStartInfo + 0x100;

}  // namespace

absl::Status WritePvhStartInfo(const PvhOptions& options, memory::GuestMemory& memory) {
  CHECK(kMemoryMap + options.memory_map.size() * sizeof(MapEntry) <= kZeroPage);
  const bool has_module = options.initrd_bytes != 0;
  RETURN_IF_ERROR(memory.WriteObject(
      kPvhStartInfo,
      StartInfo{.magic = kMagic,
                .version = kVersion,
                .flags = 0,
                .module_count = has_module ? 1U : 0U,
                .module_list_gpa = has_module ? kModuleList : 0,
                .command_line_gpa = options.command_line_gpa,
                .rsdp_gpa = options.rsdp_gpa,
                .memory_map_gpa = kMemoryMap,
                .memory_map_entries = static_cast<uint32_t>(options.memory_map.size()),
                .reserved = 0}));
  if (has_module) {
    RETURN_IF_ERROR(memory.WriteObject(kModuleList, Module{.gpa = options.initrd_gpa,
                                                           .bytes = options.initrd_bytes,
                                                           .command_line_gpa = 0,
                                                           .reserved = 0}));
  }
  uint64_t at = kMemoryMap;
  for (const MemoryMapEntry& entry : options.memory_map) {
    RETURN_IF_ERROR(memory.WriteObject(at, MapEntry{.base = entry.range.base,
                                                    .bytes = entry.range.size,
                                                    .type = static_cast<uint32_t>(entry.type),
                                                    .reserved = 0}));
    at += sizeof(MapEntry);
  }
  return absl::OkStatus();
}

}  // namespace bothy::boot
