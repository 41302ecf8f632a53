// Writes that a test can account for after a crash: numbered records at places that their numbers
// give, each durable before the next begins. The guest's program `known-writes` makes them; the
// test on the host, which knows how far it came, looks for them in what is left of the disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace known_writes {

inline constexpr size_t kRecordBytes = 4096;

// Every word of record `number` tells it from all others.
inline uint64_t Word(uint64_t number, size_t index) {
  uint64_t word = number * kRecordBytes + index + 1;
  word ^= word >> 31;
  word *= 0x9E37'79B9'7F4A'7C15;
  return word ^ word >> 29;
}

// Records are numbered from 1. The first word is the number itself.
inline void Fill(uint64_t number, std::span<uint64_t, kRecordBytes / 8> record) {
  record[0] = number;
  for (size_t i = 1; i < record.size(); ++i) record[i] = Word(number, i);
}

// The number of a record that is whole; 0 for one of zeros; none for anything else.
inline std::optional<uint64_t> NumberOf(std::span<const uint64_t, kRecordBytes / 8> record) {
  const uint64_t number = record[0];
  for (size_t i = 1; i < record.size(); ++i) {
    if (record[i] != (number == 0 ? 0 : Word(number, i))) return std::nullopt;
  }
  return number;
}

// Which of the disk's `slots` a record goes to. Consecutive ones go far apart, and in time every
// slot is written again.
inline uint64_t SlotOf(uint64_t number, uint64_t slots) { return Word(number, 0) % slots; }

}  // namespace known_writes
