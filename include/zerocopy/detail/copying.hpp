// zerocopy/detail/copying.hpp: reading and writing one end by copying, whatever it is, without blocking on it and
// without raising SIGPIPE. Counts or negated errnos; EAGAIN means that the end is not ready.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/cursor.hpp>  // Cursor
#include <zerocopy/detail/tools.hpp>   // Tools

#include <cstring>  // std::memmove

namespace zerocopy::inline ZEROCOPY_ABI::detail {

inline bool is_ready(int fd, short events) noexcept {
  pollfd end{fd, events, 0};
  return ::poll(&end, 1, 0) == 1;
}

// The flags are not for this descriptor or kernel, or a sandbox forbids the call that takes them.
constexpr bool is_refused(sys::Count result) noexcept {
  return result == -EOPNOTSUPP || result == -ENOSYS || result == -EPERM;
}

// Where the flags of preadv2 don't work (FIFOs, ttys, old kernels): what poll announces is there, and a writable pipe has
// room for PIPE_BUF bytes, a writable tty for one.
inline sys::Count polled_read(int fd, void* data, std::uint64_t n) noexcept {
  return is_ready(fd, POLLIN) ? sys::read(fd, data, n) : -EAGAIN;
}
inline sys::Count polled_write(int fd, const void* data, std::uint64_t n, std::uint64_t piece) noexcept {
  return is_ready(fd, POLLOUT) ? sys::write(fd, data, std::min(n, piece)) : -EAGAIN;
}

// Pipes, FIFOs and devices.
inline sys::Count read_stream(int fd, void* data, std::uint64_t n, Tools& tools) noexcept {
  int& flags = tools.stream().read_flags;
  if (flags != 0) {
    const sys::Count got = sys::read_flagged(fd, data, n, flags);
    if (!is_refused(got)) return got;
    flags = 0;
  }
  return polled_read(fd, data, n);
}

inline sys::Count write_stream(int fd, const void* data, std::uint64_t n, Tools& tools) noexcept {
  int& flags = tools.stream().write_flags;
  while (flags != 0) {
    const bool may_raise = (flags & rwf_nosignal) == 0;
    if (may_raise) tools.sigpipe.begin(), tools.sigpipe.suspect();
    const sys::Count put = sys::write_flagged(fd, data, n, flags);
    if (!is_refused(put)) return put;
    flags = may_raise ? 0 : RWF_NOWAIT;
  }
  tools.sigpipe.begin();
  tools.sigpipe.suspect();
  return polled_write(fd, data, n, tools.stream().polled_piece);
}

inline sys::Count read_from(const Cursor& from, void* data, std::uint64_t n, Tools& tools) noexcept {
  switch (from.kind) {
    case Kind::file: return from.positioned ? sys::pread(from.fd, data, n, from.offset) : sys::read(from.fd, data, n);
    case Kind::range: return sys::pread(from.fd, data, n, from.offset);
    case Kind::socket:
    case Kind::messages: return sys::recv(from.fd, data, n, MSG_DONTWAIT);
    default: return read_stream(from.fd, data, n, tools);
  }
}

inline sys::Count write_to(const Cursor& to, const void* data, std::uint64_t n, Tools& tools, bool more) noexcept {
  switch (to.kind) {
    case Kind::file: return to.positioned ? sys::pwrite(to.fd, data, n, to.offset) : sys::write(to.fd, data, n);
    case Kind::range: return sys::pwrite(to.fd, data, n, to.offset);
    case Kind::socket: return sys::send(to.fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    case Kind::messages: return sys::send(to.fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    case Kind::memory: return std::memmove(to.data, data, n), static_cast<sys::Count>(n);
    case Kind::mapping: return sys::copy_memory(to.data, data, n);  // a page that is gone is EFAULT, not SIGBUS
    default: return write_stream(to.fd, data, n, tools);
  }
}

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
