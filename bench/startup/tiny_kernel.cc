#include "bench/startup/tiny_kernel.h"

#include <elf.h>

#include <cstdint>
#include <cstring>
#include <fstream>

#include "bench/process.h"

namespace bothy::bench {

void WriteTinyKernel(const std::string& path) {
  constexpr uint64_t kLoadAddress = 0x100'0000;          // where Linux is built to run
  constexpr uint8_t kCode[] = {0xFA, 0xF4, 0xEB, 0xFD};  // cli; again: hlt; jmp again
  struct Image {
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    uint8_t code[sizeof kCode];
  } image{};
  std::memcpy(image.header.e_ident, ELFMAG, SELFMAG);
  image.header.e_ident[EI_CLASS] = ELFCLASS64;
  image.header.e_ident[EI_DATA] = ELFDATA2LSB;
  image.header.e_ident[EI_VERSION] = EV_CURRENT;
  image.header.e_type = ET_EXEC;
  image.header.e_machine = EM_X86_64;
  image.header.e_version = EV_CURRENT;
  image.header.e_entry = kLoadAddress;
  image.header.e_phoff = offsetof(Image, segment);
  image.header.e_ehsize = sizeof(Elf64_Ehdr);
  image.header.e_phentsize = sizeof(Elf64_Phdr);
  image.header.e_phnum = 1;
  image.segment.p_type = PT_LOAD;
  image.segment.p_flags = PF_R | PF_X;
  image.segment.p_offset = offsetof(Image, code);
  image.segment.p_vaddr = kLoadAddress;
  image.segment.p_paddr = kLoadAddress;
  image.segment.p_filesz = sizeof kCode;
  image.segment.p_memsz = 4096;
  image.segment.p_align = 1;
  std::memcpy(image.code, kCode, sizeof kCode);
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&image), sizeof image);
  if (!file.flush()) Fail("writing " + path);
}

}  // namespace bothy::bench
