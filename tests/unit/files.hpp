// Small files and their content, for unit tests that move bytes.
#pragma once

#include "catch.hpp"

#include <zerocopy/transfer.hpp>

#include <span>
#include <string>

namespace unit {

inline std::span<const std::byte> bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

// A file without a name that holds `text`, at position 0.
inline zerocopy::File file_with(const std::string& text) {
  zerocopy::File file = zerocopy::File::temporary();
  (void)zerocopy::transfer(bytes(text), file);
  file.seek(0);
  return file;
}

// All of it; the position stays.
inline std::string content(const zerocopy::File& file) {
  std::string text(file.size(), '\0');
  REQUIRE(::pread(file.as_fd().get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
  return text;
}

}  // namespace unit
