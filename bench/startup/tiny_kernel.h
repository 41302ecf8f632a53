// A kernel that halts: for servers that want one before they make a VM.
#pragma once

#include <string>

namespace bothy::bench {

// Writes an ELF vmlinux of one page to `path`: its entry stops the CPU for good.
void WriteTinyKernel(const std::string& path);

}  // namespace bothy::bench
