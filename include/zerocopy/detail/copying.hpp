// zerocopy/detail/copying.hpp: reading and writing one end by copying, whatever it is, without blocking on it and
// without raising SIGPIPE. Counts or negated errnos; EAGAIN means that the end is not ready.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/cursor.hpp>  // Cursor
#include <zerocopy/detail/tools.hpp>   // Tools

#include <netinet/tcp.h>  // TCP_CORK

#include <cstring>  // std::memmove

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// Copies within this process; a page that is gone gives EFAULT instead of SIGBUS. Where a sandbox forbids process_vm_readv
// (containers do), through a pipe.
inline sys::Count copy_memory(void* to, const void* from, std::uint64_t n) noexcept {
  const sys::Count done = sys::copy_memory(to, from, n);
  if (done != -EPERM && done != -ENOSYS) return done;
  OwnPipe pipe;
  if (const sys::Count error = Pool::take(pipe); error < 0) return error;
  const sys::Count piped = sys::write(pipe.write_end.get(), from, std::min<std::uint64_t>(n, pipe.capacity));
  if (piped < 0) return piped;
  const sys::Count copied = sys::read(pipe.read_end.get(), to, static_cast<std::uint64_t>(piped));
  if (copied == piped) Pool::give_back(std::move(pipe));
  return copied;
}

// Bytes that were sent with a promise of more, of which nothing follows. Taking a cork off sends them; one that the caller
// set stays. Nothing on sockets other than TCP.
inline void flush_promised(int fd) noexcept {
  int corked = 0;
  if (sys::get_option(fd, IPPROTO_TCP, TCP_CORK, corked) == 0 && corked == 0)
    (void)sys::set_option(fd, IPPROTO_TCP, TCP_CORK, 0);
}

inline sys::Count read_from(const Cursor& from, void* data, std::uint64_t n, Tools& tools) noexcept {
  switch (from.kind) {
    case Kind::file: return from.positioned ? sys::pread(from.fd, data, n, from.offset) : sys::read(from.fd, data, n);
    case Kind::range: return sys::pread(from.fd, data, n, from.offset);
    case Kind::socket:
    case Kind::messages: return sys::recv(from.fd, data, n, MSG_DONTWAIT);
    default: return tools.stream().read(from.fd, data, n);
  }
}

inline sys::Count write_to(const Cursor& to, const void* data, std::uint64_t n, Tools& tools, bool more) noexcept {
  switch (to.kind) {
    case Kind::file: return to.positioned ? sys::pwrite(to.fd, data, n, to.offset) : sys::write(to.fd, data, n);
    case Kind::range: return sys::pwrite(to.fd, data, n, to.offset);
    case Kind::socket: return sys::send(to.fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    case Kind::messages: return sys::send(to.fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    case Kind::memory: return std::memmove(to.data, data, n), static_cast<sys::Count>(n);
    case Kind::mapping: return copy_memory(to.data, data, n);  // a page that is gone is EFAULT, not SIGBUS
    default: return tools.stream().write(to.fd, data, n, tools.sigpipe);
  }
}

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
