#include "disk/vhdx/header_store.h"

#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "support/check.h"

namespace bothy::disk::vhdx {
namespace {

// Reads what there is of `bytes` at `offset`: OutOfRange only tells that the file is too short.
Task<absl::StatusOr<Header>> ReadHeader(Storage& storage, uint64_t offset) {
  std::vector<uint8_t> bytes(kHeaderBytes);
  absl::Status status = co_await ReadAt(storage, offset, std::span<uint8_t>(bytes));
  if (absl::IsOutOfRange(status)) {
    co_return Damaged(offset, "Header", absl::StrCat("past the end, ", storage.size(), " bytes"));
  }
  CO_RETURN_IF_ERROR(status);
  co_return ParseHeader(std::span(bytes).first<kHeaderBytes>(), offset);
}

}  // namespace

Task<absl::StatusOr<HeaderStore>> HeaderStore::Load(Storage& storage) {
  std::vector<uint8_t> identifier(8);
  absl::Status status =
      co_await ReadAt(storage, kFileIdentifierOffset, std::span<uint8_t>(identifier));
  if (!status.ok() && !absl::IsOutOfRange(status)) co_return status;
  CO_RETURN_IF_ERROR(CheckFileIdentifier(identifier));

  absl::StatusOr<Header> first = co_await ReadHeader(storage, kHeaderOffsets[0]);
  if (!first.ok() && !IsAboutContents(first.status())) co_return first.status();
  absl::StatusOr<Header> second = co_await ReadHeader(storage, kHeaderOffsets[1]);
  if (!second.ok() && !IsAboutContents(second.status())) co_return second.status();
  absl::StatusOr<int> slot = ChooseHeader(first, second);
  if (!slot.ok()) co_return slot.status();

  HeaderStore store;
  store.current_slot_ = *slot;
  store.current_ = *slot == 0 ? *first : *second;
  store.copy_status_ = *slot == 0 ? second.status() : first.status();
  CO_RETURN_IF_ERROR(CheckHeaderFields(store.current_, store.offset(), storage.size()));
  co_return store;
}

Task<absl::Status> HeaderStore::Update(Storage& storage, Change change) {
  Header next = current_;
  if (change.data_write_guid != nullptr) next.data_write_guid = *change.data_write_guid;
  if (change.log_guid != nullptr) next.log_guid = *change.log_guid;
  if (!session_begun_) next.file_write_guid = Guid::Random();
  for (int copy = 0; copy < 2; ++copy) {
    if (next.sequence_number == std::numeric_limits<uint64_t>::max()) {
      co_return Damaged(offset() + 8, "Header.SequenceNumber", "can't grow any more");
    }
    ++next.sequence_number;
    HeaderBytes bytes;
    BuildHeader(next, bytes);
    const int slot = 1 - current_slot_;
    absl::Status status =
        co_await WriteAt(storage, kHeaderOffsets[slot], std::span<const uint8_t>(bytes));
    CO_RETURN_IF_ERROR(status);
    status = co_await Flush(storage);
    CO_RETURN_IF_ERROR(status);
    current_ = next;
    current_slot_ = slot;
    session_begun_ = true;
  }
  copy_status_ = absl::OkStatus();
  co_return absl::OkStatus();
}

}  // namespace bothy::disk::vhdx
