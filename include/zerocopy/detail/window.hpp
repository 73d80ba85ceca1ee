// zerocopy/detail/window.hpp: the part of a file that a transfer has mapped at the moment.
// System calls read from it, never this library's own loads: a page that is gone gives EFAULT, not SIGBUS.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/file_id.hpp>  // reach
#include <zerocopy/detail/syscall.hpp>  // mmap, fstat

#include <sys/statfs.h>  // fstatfs

#include <cstddef>  // std::byte
#include <cstdint>  // std::uint64_t

namespace zerocopy::inline ZEROCOPY_ABI::detail {

class Window {
 public:
  static constexpr std::uint64_t span = 8 * 1024 * 1024;  // bytes mapped at once, at the most

  Window() noexcept = default;
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;
  ~Window() { close(); }

  void close() noexcept {
    if (base_ != nullptr) ::munmap(base_, size_);
    base_ = nullptr;
    size_ = 0;
  }

  // Makes the bytes from `offset` on readable. Returns how many, at most `wanted`, 0 at the end of the file,
  // or a negated errno. The file's size is looked at every time: past it a mapping reads as zeros.
  sys::Count open(int fd, std::uint64_t offset, std::uint64_t wanted) noexcept {
    struct stat now;
    if (const sys::Count error = sys::stat(fd, now); error < 0) return error;
    const std::uint64_t size = reach(now);
    if (offset >= size) return 0;
    const std::uint64_t available = std::min({wanted, size - offset, span});
    if (!holds(offset, available)) {
      if (const sys::Count error = map(fd, offset, std::min(size - offset, span)); error < 0) return error;
    }
    return static_cast<sys::Count>(available);
  }
  [[nodiscard]] const std::byte* at(std::uint64_t offset) const noexcept {
    return static_cast<const std::byte*>(base_) + (offset - start_);
  }

 private:
  // A file system in user space may give a size that is too large, and a mapping has zeros behind the true end.
  static bool may_lie(int fd) noexcept {
    constexpr long fuse_magic = 0x65735546;  // statfs(2)
    struct statfs found;
    return ::fstatfs(fd, &found) != 0 || found.f_type == fuse_magic;
  }
  [[nodiscard]] bool holds(std::uint64_t offset, std::uint64_t n) const noexcept {
    return base_ != nullptr && offset >= start_ && offset + n <= start_ + size_;
  }
  sys::Count map(int fd, std::uint64_t offset, std::uint64_t n) noexcept {
    close();
    if (may_lie(fd)) return -ENODEV;
    static const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    const std::uint64_t start = offset / page * page;
    const std::uint64_t size = n + (offset - start);
    void* const base = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(start));
    if (base == MAP_FAILED) return -errno;
    base_ = base;
    start_ = start;
    size_ = size;
    return 0;
  }

  void* base_ = nullptr;
  std::uint64_t start_ = 0;  // offset of base_ in the file
  std::uint64_t size_ = 0;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
