// zerocopy/detail/second_opening.hpp: what an O_DIRECT descriptor refuses, because an offset, a length or an address is not
// aligned, goes through the page cache: by a second opening of the file without the flag, which the caller's keeps.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/cursor.hpp>  // Cursor
#include <zerocopy/detail/reopen.hpp>  // reopen
#include <zerocopy/fd.hpp>             // OwnedFd

#include <fcntl.h>  // O_DIRECT

#include <utility>  // std::exchange

namespace zerocopy::inline ZEROCOPY_ABI::detail {

class SecondOpening {
 public:
  // Direct I/O is aligned to this wherever it works: a page, the largest block of the file systems that have it.
  static constexpr std::uint64_t block = 4096;

  // For one hop: the cursor has the second descriptor until `leave`. False where the first one is not O_DIRECT, or can't
  // be opened again. The offset becomes explicit, since the two descriptors have a position each.
  bool enter(Cursor& end) noexcept {
    if (!is_file(end.kind) || (!fd_ && !open(end.fd)) || end.pin() < 0) return false;
    end.stays_pinned = true;
    first_ = std::exchange(end.fd, fd_.get());
    return true;
  }
  void leave(Cursor& end) noexcept {
    if (first_ >= 0) end.fd = std::exchange(first_, -1);
  }
  [[nodiscard]] bool is_in_use() const noexcept { return first_ >= 0; }
  // Bytes up to where the first descriptor may be right again.
  static std::uint64_t to_boundary(std::uint64_t offset) noexcept {
    return offset % block == 0 ? to_end : block - offset % block;
  }

 private:
  bool open(int fd) noexcept {
    const sys::Count flags = sys::status_flags(fd);
    if (flags < 0 || (flags & O_DIRECT) == 0) return false;
    constexpr int kept = O_ACCMODE | O_APPEND | O_DSYNC | O_SYNC | O_NOATIME;
    fd_ = reopen(fd, static_cast<int>(flags) & kept);
    return static_cast<bool>(fd_);
  }

  OwnedFd fd_;
  int first_ = -1;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
