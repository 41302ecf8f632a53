// Windows over a scripted disk: what is filled, tracked, written back, promised.
#include "virtio/pmem/pmem_window.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "support/testing/test_folder.h"
#include "virtio/pmem/testing/window_fixture.h"

namespace bothy::virtio {
namespace {

using disk::Operation;
using ::testing::HasSubstr;
using testing::ScriptedDisk;

constexpr uint64_t kPage = kPmemPageBytes;
constexpr uint64_t kChunk = kPmemChunkBytes;

class PmemWindowTest : public testing::WindowTest {
 protected:
  // A window over a scripted disk whose 8-byte words hold their offsets.
  void OpenScripted(uint64_t size_bytes, bool read_only = false,
                    const std::function<void(ScriptedDisk&)>& script = {}) {
    auto owned = std::make_unique<ScriptedDisk>(loop(), size_bytes, read_only);
    disk_ = owned.get();
    for (uint64_t at = 0; at + 8 <= size_bytes; at += 8) {
      std::memcpy(disk_->bytes().data() + at, &at, sizeof at);
    }
    disk_->closed_flag = &disk_closed_;
    disk_->on_close = [this](const std::vector<uint8_t>& bytes) { image_ = bytes; };
    if (script) script(*disk_);
    PmemWindowOptions options;
    options.on_failure = [this](const absl::Status& status) { failures_.push_back(status); };
    const absl::Status status = Open(std::move(owned), std::move(options));
    ASSERT_TRUE(status.ok()) << status;
  }
  // Runs `look` where the disk may be looked at.
  void OnDisk(const std::function<void(ScriptedDisk&)>& look) {
    loop().PostAndWait([&] { look(*disk_); });
  }
  uint64_t OnImage(uint64_t offset) {
    uint64_t value = 0;
    std::memcpy(&value, image_.data() + offset, sizeof value);
    return value;
  }

  ScriptedDisk* disk_ = nullptr;
  bool disk_closed_ = false;
  std::vector<uint8_t> image_;  // after Close
  std::vector<absl::Status> failures_;
};

TEST_F(PmemWindowTest, PagesAreFilledFromTheDiskAndWrittenBack) {
  SKIP_WITHOUT_USERFAULTFD();
  OpenScripted(1 << 20);
  EXPECT_EQ(window_->size_bytes(), kPmemAlignment);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(window_->host().data()) % kPmemAlignment, 0U);
  EXPECT_EQ(window_->disk_bytes(), 1U << 20);
  EXPECT_EQ(Load(0x12340), 0x12340U);
  Store(0x12348, 42);
  EXPECT_EQ(Load(0x12348), 42U);
  EXPECT_EQ(Load(0x12350), 0x12350U);
  EXPECT_EQ(window_->state().populated_bytes, kChunk);
  EXPECT_EQ(window_->state().dirty_bytes, kPage);
  ASSERT_TRUE(Flush().ok());
  EXPECT_EQ(window_->state().dirty_bytes, 0U);
  EXPECT_EQ(window_->state().written_bytes, kPage);
  OnDisk([](ScriptedDisk& disk) {
    uint64_t value = 0;
    std::memcpy(&value, disk.durable().data() + 0x12348, sizeof value);
    EXPECT_EQ(value, 42U);
  });
  ASSERT_TRUE(Close().ok());
  EXPECT_TRUE(disk_closed_);
  EXPECT_EQ(OnImage(0x12348), 42U);
}

TEST_F(PmemWindowTest, StoresAfterAFlushCountAnew) {
  SKIP_WITHOUT_USERFAULTFD();
  OpenScripted(1 << 20);
  for (uint64_t round = 1; round <= 20; ++round) {
    Store(0x8000, round);
    Store(0x18000, round);
    ASSERT_TRUE(Flush().ok());
    OnDisk([&](ScriptedDisk& disk) {
      uint64_t value = 0;
      std::memcpy(&value, disk.durable().data() + 0x8000, sizeof value);
      EXPECT_EQ(value, round);
    });
  }
  EXPECT_EQ(window_->state().written_bytes, 40 * kPage);
  ASSERT_TRUE(Close().ok());
}

TEST_F(PmemWindowTest, ItSettlesWhenPagesAreThere) {
  SKIP_WITHOUT_USERFAULTFD();
  OpenScripted(1 << 20);
  std::atomic<bool> settled = false;
  OnDisk([&](ScriptedDisk& disk) {
    disk.on_request = [&](const disk::Request& request) {
      if (request.operation != Operation::kRead) return absl::OkStatus();
      Start(window_->Settle(), [&] {
        settled = true;
        settled.notify_one();
      });
      EXPECT_FALSE(settled);
      return absl::OkStatus();
    };
  });
  EXPECT_EQ(Load(0x8000), 0x8000U);
  settled.wait(false);
  EXPECT_TRUE(Close().ok());
}

TEST_F(PmemWindowTest, CleanPagesAreNotWritten) {
  SKIP_WITHOUT_USERFAULTFD();
  OpenScripted(1 << 20);
  for (uint64_t at = 0; at < 1 << 20; at += kPage) EXPECT_EQ(Load(at), at);
  OnDisk([](ScriptedDisk& disk) {
    disk.on_request = [](const disk::Request& request) {
      EXPECT_NE(request.operation, Operation::kWrite);
      return absl::OkStatus();
    };
  });
  EXPECT_TRUE(Flush().ok());
  EXPECT_TRUE(Close().ok());
}

TEST_F(PmemWindowTest, UnallocatedPagesAreZeroUntilStoredTo) {
  SKIP_WITHOUT_USERFAULTFD();
  OpenScripted(4 << 20, false, [](ScriptedDisk& disk) {
    disk.on_map = [](uint64_t offset) {
      return disk::Extent{.kind = disk::Extent::Kind::kZero, .length = (4 << 20) - offset};
    };
    disk.on_request = [](const disk::Request& request) {
      EXPECT_NE(request.operation, Operation::kRead);  // there is nothing to be read
      return absl::OkStatus();
    };
  });
  for (uint64_t at = 0; at < 4 << 20; at += kPage) EXPECT_EQ(Load(at), 0U);
  EXPECT_EQ(window_->state().dirty_bytes, 0U);
  Store(3 * kPage, 7);  // a page that was looked at
  EXPECT_EQ(window_->state().dirty_bytes, kPage);
  ASSERT_TRUE(Close().ok());
  EXPECT_EQ(OnImage(3 * kPage), 7U);
  EXPECT_EQ(OnImage(4 * kPage), 4 * kPage);  // not written
}

TEST_F(PmemWindowTest, FirstAccessMayBeAStore) {
  SKIP_WITHOUT_USERFAULTFD();
  OpenScripted(4 << 20, false, [](ScriptedDisk& disk) {
    disk.on_map = [](uint64_t offset) {
      disk::Extent extent;
      const uint64_t half = 2 << 20;
      extent.kind = offset < half ? disk::Extent::Kind::kZero : disk::Extent::Kind::kOpaque;
      extent.length = offset < half ? half - offset : 2 * half - offset;
      return extent;
    };
  });
  for (uint64_t at = kPage; at < 4 << 20; at += 3 * kPage) Store(at, at + 1);
  ASSERT_TRUE(Close().ok());
  for (uint64_t at = kPage; at < 4 << 20; at += 3 * kPage) EXPECT_EQ(OnImage(at), at + 1);
}

TEST_F(PmemWindowTest, StoresOfTheHostKernelAreSeen) {
  SKIP_WITHOUT_USERFAULTFD();
  OpenScripted(1 << 20);
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const UniqueFd reader(pipe[0]);
  const UniqueFd writer(pipe[1]);
  const std::vector<uint8_t> data(2 * kPage, 0xA5);
  for (int round = 0; round < 2; ++round) {
    ASSERT_EQ(::write(writer.get(), data.data(), data.size()), 2 * kPage);
    // Into pages that aren't there, then into pages that are clean.
    ASSERT_EQ(::read(reader.get(), At(kChunk - kPage), data.size()), 2 * kPage);
    EXPECT_EQ(window_->state().dirty_bytes, 2 * kPage) << round;
    ASSERT_TRUE(Flush().ok());
    EXPECT_EQ(window_->state().dirty_bytes, 0U);
  }
  // And its reads: out of pages that aren't there.
  ASSERT_EQ(::write(writer.get(), At(0x40000), 8), 8);
  uint64_t value = 0;
  ASSERT_EQ(::read(reader.get(), &value, sizeof value), 8);
  EXPECT_EQ(value, 0x40000U);
  ASSERT_TRUE(Close().ok());
  EXPECT_EQ(OnImage(kChunk), 0xA5A5A5A5A5A5A5A5U);
}

TEST_F(PmemWindowTest, ReadOnlyDiskIsReadOnlyMemory) {
  SKIP_WITHOUT_USERFAULTFD();
  OpenScripted(1 << 20, true);
  EXPECT_TRUE(window_->read_only());
  EXPECT_EQ(Load(0x5000), 0x5000U);
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const UniqueFd reader(pipe[0]);
  const UniqueFd writer(pipe[1]);
  ASSERT_EQ(::write(writer.get(), "12345678", 8), 8);
  EXPECT_EQ(::read(reader.get(), At(0x5000), 8), -1);
  EXPECT_EQ(errno, EFAULT);
  EXPECT_EQ(Load(0x5000), 0x5000U);
  EXPECT_TRUE(Flush().ok());
  // A guest whose store had nowhere to go isn't told that it is durable.
  window_->NoteRefusedStore();
  EXPECT_TRUE(absl::IsPermissionDenied(Flush()));
  EXPECT_TRUE(absl::IsPermissionDenied(Close()));
}

TEST_F(PmemWindowTest, PaddingIsZeroAndPromisedToNobody) {
  SKIP_WITHOUT_USERFAULTFD();
  OpenScripted((2 << 20) + 3 * kPage);
  EXPECT_EQ(window_->size_bytes(), 4U << 20);
  const uint64_t end = (2 << 20) + 3 * kPage;
  EXPECT_EQ(Load(end - 8), end - 8);
  EXPECT_EQ(Load(end), 0U);
  EXPECT_EQ(Load((4 << 20) - 8), 0U);
  Store(0, 1);
  EXPECT_TRUE(Flush().ok());
  Store((4 << 20) - 8, 1);
  const absl::Status status = Flush();
  EXPECT_TRUE(absl::IsOutOfRange(status)) << status;
  EXPECT_THAT(window_->state().last_error, HasSubstr("past the disk's end"));
  EXPECT_EQ(window_->state().failed_flushes, 1U);
  Store((4 << 20) - 8, 0);
  EXPECT_TRUE(Flush().ok());
  ASSERT_TRUE(Close().ok());
}

TEST_F(PmemWindowTest, LastPageMayBeTheDisksInPart) {
  SKIP_WITHOUT_USERFAULTFD();
  constexpr uint64_t kSize = kChunk + kPage + 512;
  OpenScripted(kSize);
  EXPECT_EQ(Load(kSize - 8), kSize - 8);
  EXPECT_EQ(Load(kSize), 0U);
  Store(kSize - 8, 99);
  EXPECT_TRUE(Flush().ok());
  Store(kSize, 1);
  EXPECT_TRUE(absl::IsOutOfRange(Flush()));
  EXPECT_TRUE(absl::IsOutOfRange(Flush()));  // and stays so
  Store(kSize, 0);
  EXPECT_TRUE(Flush().ok());
  ASSERT_TRUE(Close().ok());
  EXPECT_EQ(OnImage(kSize - 8), 99U);
}

TEST_F(PmemWindowTest, AFailedWriteIsReportedAndTriedAgain) {
  SKIP_WITHOUT_USERFAULTFD();
  OpenScripted(8 << 20);
  for (uint64_t at = 0; at < 8 << 20; at += 2 * kPage) Store(at, at ^ 1);
  OnDisk([](ScriptedDisk& disk) {
    disk.on_request = [n = 0](const disk::Request& request) mutable {
      if (request.operation != Operation::kWrite || ++n % 3 != 0) return absl::OkStatus();
      return absl::ResourceExhaustedError("the host is full");
    };
  });
  EXPECT_TRUE(absl::IsResourceExhausted(Flush()));
  EXPECT_GT(window_->state().dirty_bytes, 0U);
  EXPECT_THAT(window_->state().last_error, HasSubstr("the host is full"));
  EXPECT_TRUE(window_->failure().ok());
  OnDisk([](ScriptedDisk& disk) { disk.on_request = nullptr; });
  EXPECT_TRUE(Flush().ok());
  EXPECT_EQ(window_->state().dirty_bytes, 0U);
  OnDisk([](ScriptedDisk& disk) {
    for (uint64_t at = 0; at < 8 << 20; at += 2 * kPage) {
      uint64_t value = 0;
      std::memcpy(&value, disk.durable().data() + at, sizeof value);
      ASSERT_EQ(value, at ^ 1);
    }
  });
  ASSERT_TRUE(Close().ok());
}

TEST_F(PmemWindowTest, AFailedDiskFlushTakesNothingForWritten) {
  SKIP_WITHOUT_USERFAULTFD();
  OpenScripted(1 << 20);
  Store(0x3000, 5);
  OnDisk([](ScriptedDisk& disk) {
    disk.on_request = [](const disk::Request& request) {
      return request.operation == Operation::kFlush ? absl::InternalError("I/O error")
                                                    : absl::OkStatus();
    };
  });
  EXPECT_TRUE(absl::IsInternal(Flush()));
  // The host may have dropped what it could not write.
  OnDisk([](ScriptedDisk& disk) {
    disk.on_request = nullptr;
    std::fill(disk.bytes().begin(), disk.bytes().end(), uint8_t{0});
  });
  EXPECT_TRUE(Flush().ok());
  ASSERT_TRUE(Close().ok());
  EXPECT_EQ(OnImage(0x3000), 5U);
}

TEST_F(PmemWindowTest, AnUnreadablePageFailsEveryFlushAndIsNeverWritten) {
  SKIP_WITHOUT_USERFAULTFD();
  OpenScripted(1 << 20, false, [](ScriptedDisk& disk) {
    disk.on_request = [](const disk::Request& request) {
      const bool bad = request.operation == Operation::kRead && request.offset <= 0x23000 &&
                       request.offset + request.length > 0x23000;
      return bad ? absl::DataLossError("a bad sector") : absl::OkStatus();
    };
  });
  EXPECT_TRUE(Flush().ok());
  EXPECT_EQ(Load(0x22000), 0x22000U);  // its neighbours are fine
  EXPECT_EQ(Load(0x24000), 0x24000U);
  EXPECT_EQ(Load(0x23008), 0U);
  Store(0x23000, 77);
  Store(0x24000, 78);
  EXPECT_TRUE(absl::IsDataLoss(Flush()));
  EXPECT_TRUE(absl::IsDataLoss(Flush()));
  EXPECT_TRUE(absl::IsDataLoss(window_->failure()));
  EXPECT_THAT(window_->state().failure, HasSubstr("a bad sector"));
  EXPECT_TRUE(absl::IsDataLoss(Close()));
  EXPECT_EQ(failures_.size(), 1U);
  EXPECT_EQ(OnImage(0x23000), 0x23000U);
  EXPECT_EQ(OnImage(0x23008), 0x23008U);
  EXPECT_EQ(OnImage(0x24000), 78U);
}

TEST_F(PmemWindowTest, CreationThatFailsClosesTheDisk) {
  auto disk = std::make_unique<ScriptedDisk>(loop(), 0);
  disk->closed_flag = &disk_closed_;
  EXPECT_TRUE(absl::IsInvalidArgument(Open(std::move(disk))));
  EXPECT_TRUE(disk_closed_);
  // More than there are addresses.
  disk_closed_ = false;
  struct HugeDisk final : disk::Disk {
    explicit HugeDisk(bool& closed) : closed(closed) { where.size_bytes = uint64_t{1} << 62; }
    void Submit(disk::Request& request) override { request.Complete(absl::OkStatus()); }
    [[nodiscard]] const disk::Geometry& geometry() const override { return where; }
    Task<absl::StatusOr<disk::Extent>> MapExtent(uint64_t) override { co_return disk::Extent{}; }
    Task<absl::Status> Close() override {
      closed = true;
      co_return absl::OkStatus();
    }
    [[nodiscard]] std::string_view format() const override { return "huge"; }
    [[nodiscard]] const std::string& path() const override { return name; }
    [[nodiscard]] std::vector<disk::Fact> Facts() const override { return {}; }
    bool& closed;
    disk::Geometry where;
    std::string name = "huge.img";
  };
  const absl::Status status = Open(std::make_unique<HugeDisk>(disk_closed_));
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("huge.img"));
  EXPECT_TRUE(disk_closed_);
}

TEST_F(PmemWindowTest, AddressesOutliveTheWindow) {
  SKIP_WITHOUT_USERFAULTFD();
  OpenScripted(1 << 20);
  Store(0, 1);
  const std::span<uint8_t> host = window_->host();
  ASSERT_TRUE(OnLoop([this] { return window_->Close(); }).ok());
  testing::GuestStore(host.data() + 0x8000, 2);  // nobody is waited for
  const Mapping kept = window_->TakeMapping();
  window_.reset();
  testing::GuestStore(host.data() + host.size() - 8, 3);
  EXPECT_EQ(testing::GuestLoad(host.data() + 0x8000), 2U);
  EXPECT_EQ(OnImage(0), 1U);
  EXPECT_EQ(OnImage(0x8000), 0x8000U);
}

TEST_F(PmemWindowTest, WhoWaitsForAPageWhenTheWindowClosesGoesOn) {
  SKIP_WITHOUT_USERFAULTFD();
  std::promise<void> reading;
  OpenScripted(1 << 20, false, [&](ScriptedDisk& disk) {
    disk.on_request = [&, told = false](const disk::Request& request) mutable {
      if (request.operation == Operation::kRead && !std::exchange(told, true)) reading.set_value();
      return absl::OkStatus();
    };
  });
  std::vector<std::thread> guests;
  for (int i = 0; i < 4; ++i) {
    guests.emplace_back([this, i] {
      for (uint64_t at = i * kPage; at < 1 << 20; at += 4 * kPage) (void)Load(at);
    });
  }
  reading.get_future().wait();
  ASSERT_TRUE(OnLoop([this] { return window_->Close(); }).ok());
  for (std::thread& guest : guests) guest.join();
  window_.reset();
}

class PmemMappedSyncTest : public PmemWindowTest {
 protected:
  void OpenMapped() {
    ASSERT_TRUE(file_);
    // No holes, which aren't mapped.
    const std::vector<uint8_t> bytes(2 << 20, 9);
    ASSERT_EQ(::write(file_.get(), bytes.data(), bytes.size()), 2 << 20);
    OpenScripted(2 << 20, false, [this](ScriptedDisk& disk) {
      disk.on_map = [this](uint64_t offset) {
        return disk::Extent{.kind = disk::Extent::Kind::kFile,
                            .length = (2 << 20) - offset,
                            .fd = file_.get(),
                            .file_offset = offset,
                            .writable = true};
      };
      disk.on_sync = [this](const disk::Disk::MappedSync& sync) {
        ++syncs_;
        return answer_ ? *answer_ : sync;
      };
    });
  }

  const TestFolder folder_;
  const UniqueFd file_{::open((folder_ / "image").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
  int syncs_ = 0;
  std::optional<disk::Disk::MappedSync> answer_;
};

// Of mapped pages that are demand pages now, stores from before are in the host's page cache.
TEST_F(PmemMappedSyncTest, WhatWasMappedIsSyncedByTheNextFlush) {
  SKIP_WITHOUT_USERFAULTFD();
  OpenMapped();
  ASSERT_EQ(window_->state().mapped_bytes, 2U << 20);
  Store(kPage, 1);
  ASSERT_TRUE(window_->OnFault(PmemWindow::Suspects::kAll));
  ASSERT_EQ(window_->state().mapped_bytes, 0U);
  // A disk that didn't get as far: the flush after that does it.
  answer_ = {.status = absl::ResourceExhaustedError("full"), .stores_lost = false};
  EXPECT_TRUE(absl::IsResourceExhausted(Flush()));
  answer_.reset();
  EXPECT_TRUE(Flush().ok());
  EXPECT_EQ(syncs_, 2);
  EXPECT_TRUE(Flush().ok());
  EXPECT_EQ(syncs_, 2);
  EXPECT_TRUE(Close().ok());
}

// The disk knows of the flushes of its file that failed, its own among them, which nobody asked
// for.
TEST_F(PmemMappedSyncTest, StoresThatTheHostLostFailEveryFlush) {
  OpenMapped();
  Store(kPage, 1);
  answer_ = {.status = absl::DataLossError("EIO"), .stores_lost = true};
  EXPECT_TRUE(absl::IsDataLoss(Flush()));
  answer_.reset();
  EXPECT_TRUE(absl::IsDataLoss(Flush()));
  EXPECT_THAT(window_->state().failure, HasSubstr("EIO"));
  EXPECT_FALSE(Close().ok());
}

TEST(FileMappingsTest, WhatIsForgottenIsSyncedOnce) {
  const UniqueFd file(::memfd_create("image", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), 2 * kPage), 0);
  absl::StatusOr<Mapping> window = Mapping::Create(2 * kPage, PROT_READ | PROT_WRITE,
                                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, "a window");
  ASSERT_TRUE(window.ok());
  FileMappings mappings(window->bytes(), true, 4);
  EXPECT_TRUE(mappings.TakeUnsynced().empty());
  ASSERT_TRUE(mappings.Map({.offset = 0, .length = 2 * kPage}, file.get(), 0));
  const std::vector<int> one = {file.get()};
  EXPECT_EQ(mappings.TakeUnsynced(), one);
  EXPECT_EQ(mappings.TakeUnsynced(), one);  // is still mapped
  mappings.Forget({.offset = 0, .length = 2 * kPage});
  EXPECT_EQ(mappings.TakeUnsynced(), one);
  EXPECT_TRUE(mappings.TakeUnsynced().empty());
}

// Threads store ever higher numbers, each to words of its own, and flush: what a thread had stored
// before a flush that succeeded is in what a crash leaves, or something newer is.
TEST_F(PmemWindowTest, WhatWasFlushedSurvivesACrashAtAnyTime) {
  SKIP_WITHOUT_USERFAULTFD();
  constexpr uint64_t kSize = 4 << 20;
  constexpr uint64_t kThreads = 4;
  const int rounds = 60;
  OpenScripted(kSize, false, [](ScriptedDisk& disk) {
    std::fill(disk.bytes().begin(), disk.bytes().end(), uint8_t{0});
    disk.on_map = [](uint64_t offset) {
      const uint64_t megabyte = offset >> 20;
      return disk::Extent{
          .kind = megabyte % 2 == 0 ? disk::Extent::Kind::kZero : disk::Extent::Kind::kOpaque,
          .length = ((megabyte + 1) << 20) - offset};
    };
    // Not for ever, or there might be no flush at all that succeeds.
    disk.on_request = [n = 0](const disk::Request& request) mutable {
      const bool fails = request.operation == Operation::kWrite && ++n < 1000 && n % 50 == 0;
      return fails ? absl::ResourceExhaustedError("full") : absl::OkStatus();
    };
  });
  std::vector<std::vector<uint64_t>> finals(kThreads, std::vector<uint64_t>(kSize / 8));
  std::vector<std::thread> threads;
  std::atomic<int> promised{0};
  for (uint64_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(thread);
      std::vector<uint64_t>& stored = finals[thread];
      for (int round = 1; round <= rounds; ++round) {
        for (int i = 0; i < 200; ++i) {
          const uint64_t word = random() % (kSize / 8 / kThreads) * kThreads + thread;
          stored[word] = static_cast<uint64_t>(round);
          Store(8 * word, static_cast<uint64_t>(round));
        }
        if (round % 4 != 0 || !Flush().ok()) continue;
        promised.fetch_add(1);
        OnDisk([&](ScriptedDisk& disk) {
          for (uint64_t word = thread; word < kSize / 8; word += kThreads) {
            uint64_t value = 0;
            std::memcpy(&value, disk.durable().data() + 8 * word, sizeof value);
            ASSERT_GE(value, stored[word]) << "word " << word;
          }
        });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(promised.load(), 0);
  OnDisk([](ScriptedDisk& disk) { disk.on_request = nullptr; });
  ASSERT_TRUE(Close().ok());
  for (uint64_t word = 0; word < kSize / 8; ++word) {
    ASSERT_EQ(OnImage(8 * word), finals[word % kThreads][word]) << "word " << word;
  }
}

}  // namespace
}  // namespace bothy::virtio
