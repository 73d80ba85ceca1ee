// zerocopy/detail/syscall.hpp: the system calls that move bytes, with EINTR retried and lengths clamped; nothing else.
// Every function returns the count, or the negated errno: the convention of io_uring's completions, so that
// a call and a ring operation are judged by the same code. It never decides what an errno means.
#pragma once

#include <zerocopy/config.hpp>

#include <fcntl.h>         // splice, vmsplice
#include <poll.h>          // poll
#include <sys/ioctl.h>     // ioctl
#include <sys/mman.h>      // mmap
#include <sys/sendfile.h>  // sendfile
#include <sys/socket.h>    // send, recv
#include <sys/stat.h>      // fstat
#include <sys/uio.h>       // preadv2, pwritev2, process_vm_readv
#include <unistd.h>        // read, write, copy_file_range

#include <algorithm>  // std::min
#include <cerrno>     // errno
#include <cstddef>    // std::byte
#include <cstdint>    // std::uint64_t

namespace zerocopy::inline ZEROCOPY_ABI::detail::sys {

static_assert(sizeof(off_t) == 8, "zerocopy needs 64-bit file offsets: compile with -D_FILE_OFFSET_BITS=64");

using Count = std::int64_t;  // >= 0: bytes; < 0: negated errno

inline constexpr std::uint64_t most_per_call = 0x7ffff000;  // read(2), "NOTES"

constexpr std::size_t clamp(std::uint64_t n) noexcept { return static_cast<std::size_t>(std::min(n, most_per_call)); }

template <class Call>
inline Count retry(Call call) noexcept {
  for (;;) {
    const auto n = call();
    if (n >= 0) return static_cast<Count>(n);
    if (errno != EINTR) return -errno;
  }
}

// A null `offset` means: from the file's own position, which moves. Otherwise the position stays.

inline Count sendfile(int out, int in, off_t* offset, std::uint64_t n) noexcept {
  return retry([=] { return ::sendfile(out, in, offset, clamp(n)); });
}
inline Count copy_file_range(int in, off_t* in_offset, int out, off_t* out_offset, std::uint64_t n) noexcept {
  return retry([=] { return ::copy_file_range(in, in_offset, out, out_offset, clamp(n), 0); });
}
inline Count splice(int in, off_t* in_offset, int out, off_t* out_offset, std::uint64_t n, unsigned flags) noexcept {
  return retry([=] { return ::splice(in, in_offset, out, out_offset, clamp(n), flags); });
}
inline Count tee(int in, int out, std::uint64_t n) noexcept {
  return retry([=] { return ::tee(in, out, clamp(n), SPLICE_F_NONBLOCK); });
}
inline Count vmsplice(int out, const void* data, std::uint64_t n, unsigned flags) noexcept {
  const iovec part{const_cast<void*>(data), clamp(n)};
  return retry([=] { return ::vmsplice(out, &part, 1, flags); });
}
// FICLONERANGE; <linux/fs.h>, which names it, can't be included beside glibc 2.36's <sys/mount.h>.
struct CloneRange {
  std::int64_t in;
  std::uint64_t in_offset;
  std::uint64_t length;
  std::uint64_t out_offset;
};
inline constexpr unsigned long clone_range_request = _IOW(0x94, 13, CloneRange);

// Shares `n` bytes of extents. 0 on success: the ioctl moves all or nothing.
inline Count clone_range(int in, std::uint64_t in_offset, int out, std::uint64_t out_offset, std::uint64_t n) noexcept {
  const CloneRange range{in, in_offset, n, out_offset};
  return retry([=] { return ::ioctl(out, clone_range_request, &range); });
}
inline Count read(int fd, void* data, std::uint64_t n) noexcept {
  return retry([=] { return ::read(fd, data, clamp(n)); });
}
inline Count pread(int fd, void* data, std::uint64_t n, std::uint64_t offset) noexcept {
  return retry([=] { return ::pread(fd, data, clamp(n), static_cast<off_t>(offset)); });
}
inline Count write(int fd, const void* data, std::uint64_t n) noexcept {
  return retry([=] { return ::write(fd, data, clamp(n)); });
}
inline Count pwrite(int fd, const void* data, std::uint64_t n, std::uint64_t offset) noexcept {
  return retry([=] { return ::pwrite(fd, data, clamp(n), static_cast<off_t>(offset)); });
}
// At the file's own position, with RWF_ flags.
inline Count read_flagged(int fd, void* data, std::uint64_t n, int flags) noexcept {
  const iovec part{data, clamp(n)};
  return retry([=] { return ::preadv2(fd, &part, 1, -1, flags); });
}
inline Count write_flagged(int fd, const void* data, std::uint64_t n, int flags) noexcept {
  const iovec part{const_cast<void*>(data), clamp(n)};
  return retry([=] { return ::pwritev2(fd, &part, 1, -1, flags); });
}
inline Count recv(int fd, void* data, std::uint64_t n, int flags) noexcept {
  return retry([=] { return ::recv(fd, data, clamp(n), flags); });
}
inline Count send(int fd, const void* data, std::uint64_t n, int flags) noexcept {
  return retry([=] { return ::send(fd, data, clamp(n), flags); });
}
// Copies within this process; a page that is gone gives EFAULT instead of SIGBUS.
inline Count copy_memory(void* to, const void* from, std::uint64_t n) noexcept {
  const iovec local{to, clamp(n)};
  const iovec remote{const_cast<void*>(from), clamp(n)};
  return retry([=] { return ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0); });
}
inline Count seek(int fd, std::int64_t offset, int whence) noexcept {
  const off_t at = ::lseek(fd, offset, whence);
  return at >= 0 ? at : -errno;
}
inline Count stat(int fd, struct stat& out) noexcept { return ::fstat(fd, &out) == 0 ? 0 : -errno; }
inline Count status_flags(int fd) noexcept {
  const int flags = ::fcntl(fd, F_GETFL);
  return flags >= 0 ? flags : -errno;
}
template <class T>
inline Count get_option(int fd, int level, int name, T& value) noexcept {
  socklen_t size = sizeof(value);
  return ::getsockopt(fd, level, name, &value, &size) == 0 ? 0 : -errno;
}
template <class T>
inline Count set_option(int fd, int level, int name, const T& value) noexcept {
  return ::setsockopt(fd, level, name, &value, sizeof(value)) == 0 ? 0 : -errno;
}

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail::sys
