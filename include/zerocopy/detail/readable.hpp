// zerocopy/detail/readable.hpp: the next bytes of a source as memory that a system call can read: a span, a mapped file
// as far as the file still reaches, or a window onto a file.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/cursor.hpp>  // Cursor
#include <zerocopy/detail/tools.hpp>   // Tools

namespace zerocopy::inline ZEROCOPY_ABI::detail {

struct Readable {
  const std::byte* data = nullptr;
  sys::Count size = 0;  // 0 at the end, or a negated errno
};

inline Readable readable(const Cursor& from, std::uint64_t budget, Tools& tools) noexcept {
  if (from.kind == Kind::memory) return {from.data, static_cast<sys::Count>(sys::clamp(std::min(budget, from.left)))};
  if (from.kind != Kind::mapping) {
    const sys::Count n = tools.window().open(from.fd, from.offset, budget);
    return {n > 0 ? tools.window().at(from.offset) : nullptr, n};
  }
  // Past the end of its file a mapping would read as zeros up to the page's end.
  struct stat file;
  if (const sys::Count error = sys::stat(from.fd, file); error < 0) return {nullptr, error};
  const std::uint64_t size = reach(file);
  if (from.offset >= size) return {};
  return {from.data, static_cast<sys::Count>(
                         std::min({sys::clamp(budget), sys::clamp(from.left), sys::clamp(size - from.offset)}))};
}

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
