// Memory storages to and from sparse files, for other programs to look at.
#pragma once

#include <string>

#include "disk/testing/memory_storage.h"

namespace bothy::disk {

// Writes what `storage` holds into a new file; holes stay holes.
void SaveSparse(const MemoryStorage& storage, const std::string& path);
// The other way round; `storage` is empty.
void LoadSparse(const std::string& path, MemoryStorage& storage);

// Runs a shell command; its exit status, and in `output` what it wrote.
int RunCommand(const std::string& command, std::string& output);

}  // namespace bothy::disk
