// FakeDisk: a Disk in memory for tests of what stands above disks: it says what it is told to say,
// fails when it is told to fail, and completes when it is told to complete.
//
// Its bytes lie in a MemoryStorage, whose hooks and Pump decide about each request.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "disk/disk.h"
#include "disk/testing/memory_storage.h"

namespace bothy::disk {

class FakeDisk final : public Disk {
 public:
  struct Options {
    Geometry geometry = {};
    std::string path = "fake.img";
    std::optional<Guid> identity = {};
    std::unique_ptr<Disk> parent = {};  // only said to be there
    bool immediate = false;             // complete within Submit; false: when Pump says so
    uint64_t seed = 0;                  // of the order in which Pump completes; 0: as submitted
  };

  explicit FakeDisk(Options options);

  void Submit(Request& request) override;
  [[nodiscard]] const Geometry& geometry() const override { return options_.geometry; }
  // Runs of zeros are kZero, all else kOpaque, in units of kExtentBytes.
  Task<absl::StatusOr<Extent>> MapExtent(uint64_t offset) override;
  Task<void> Settle() override;
  // The same runs: kZero and kHere.
  Task<absl::StatusOr<Presence>> FindPresence(uint64_t offset) override;
  absl::Status Refresh() override;
  Task<absl::Status> Close() override;
  [[nodiscard]] std::string_view format() const override { return "fake"; }
  [[nodiscard]] const std::string& path() const override { return options_.path; }
  [[nodiscard]] std::vector<Fact> Facts() const override;
  [[nodiscard]] const Disk* parent() const override { return options_.parent.get(); }
  [[nodiscard]] std::optional<Guid> identity() const override { return options_.identity; }

  static constexpr uint64_t kExtentBytes = 4096;

  // The bytes, and on_request to fail a request.
  [[nodiscard]] MemoryStorage& storage() { return storage_; }
  // Completes one waiting request; false when there is none.
  bool Pump() { return storage_.Pump(); }
  // What Refresh finds; none: what is there already.
  std::optional<absl::StatusOr<uint64_t>> size_after_refresh;
  // Fails MapExtent.
  absl::Status map_status;
  // Answers it instead.
  std::function<Extent(uint64_t offset)> map_extent;
  // What Settle waits for: so many flushes of the storage, one after the other.
  int flushes_to_settle = 0;
  // Fails FindPresence.
  absl::Status presence_status;

 private:
  // The run of zeros, or of other bytes, that begins at `offset`, within its unit.
  struct Run {
    uint64_t length = 0;
    bool zero = false;
  };
  [[nodiscard]] absl::StatusOr<Run> FindRun(uint64_t offset) const;

  Options options_;
  MemoryStorage storage_;
};

}  // namespace bothy::disk
