// HeaderStore: the two headers of one image file, read once, then updated as [MS-VHDX] 2.2.2.1
// says: the one that isn't current, a flush, the other one, a flush.
#pragma once

#include <cstdint>

#include "disk/storage.h"
#include "disk/vhdx/header.h"
#include "support/guid.h"
#include "support/task.h"

namespace bothy::disk::vhdx {

class HeaderStore {
 public:
  // Checks the identifier, chooses the current header and checks its fields.
  static Task<absl::StatusOr<HeaderStore>> Load(Storage& storage);

  [[nodiscard]] const Header& current() const { return current_; }
  // Of the current header, in the file.
  [[nodiscard]] uint64_t offset() const { return kHeaderOffsets[current_slot_]; }
  // What is wrong with either copy, valid or not: OK when both say the same.
  [[nodiscard]] const absl::Status& copy_status() const { return copy_status_; }

  // The next update, which is the first of the session, gets a fresh FileWriteGuid.
  [[nodiscard]] bool session_begun() const { return session_begun_; }

  // Writes what current() says with the changes asked for into both copies; durable on return. The
  // sequence number is set here. Not while another update is under way. After an error either
  // version may be the current one after a crash; the next update is good again.
  struct Change {
    const Guid* data_write_guid = nullptr;
    const Guid* log_guid = nullptr;
  };
  Task<absl::Status> Update(Storage& storage, Change change);

 private:
  HeaderStore() = default;

  Header current_;
  int current_slot_ = 0;
  bool session_begun_ = false;
  absl::Status copy_status_;
};

}  // namespace bothy::disk::vhdx
