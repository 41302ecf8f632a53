// Value: a piece of the state tree as it was when somebody asked: a directory or a leaf.
//
// Plain data. inspect/to_protobuf.h makes a google.protobuf.Value of it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

namespace bothy::inspect {

struct Entry;

struct Null {
  bool operator==(const Null&) const = default;
};

// In the order in which they were described; names are distinct.
struct Directory {
  std::vector<Entry> entries;
  bool operator==(const Directory&) const;
};

// Null stands for a directory that is there but wasn't asked for.
struct Value : std::variant<Null, bool, int64_t, uint64_t, double, std::string, Directory> {
  using variant::variant;
  [[nodiscard]] const variant& AsVariant() const { return *this; }
  bool operator==(const Value& other) const { return AsVariant() == other.AsVariant(); }
};

struct Entry {
  std::string name;
  Value value;
  bool operator==(const Entry&) const = default;
};

inline bool Directory::operator==(const Directory& other) const { return entries == other.entries; }

}  // namespace bothy::inspect
