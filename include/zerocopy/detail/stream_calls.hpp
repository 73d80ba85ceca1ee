// zerocopy/detail/stream_calls.hpp: reading and writing pipes, FIFOs and devices by copying, without blocking on them whatever
// their flags, and without SIGPIPE. Counts or negated errnos; EAGAIN means not ready. It owns what it learned of the
// descriptor, and of a tty a second opening that does not block.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/reopen.hpp>   // reopen
#include <zerocopy/detail/sigpipe.hpp>  // SigpipeBlock
#include <zerocopy/detail/syscall.hpp>  // read, write
#include <zerocopy/fd.hpp>              // OwnedFd

#include <limits.h>         // PIPE_BUF
#include <sys/ioctl.h>      // TIOCGPTN
#include <sys/sysmacros.h>  // major

#include <algorithm>  // std::min
#include <cstdint>    // std::uint64_t

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// Of Linux 6.18; older headers lack it, older kernels refuse it.
inline constexpr int rwf_nosignal = 0x100;

inline bool is_ready(int fd, short events) noexcept {
  pollfd end{fd, events, 0};
  return ::poll(&end, 1, 0) == 1;
}

class StreamCalls {
 public:
  sys::Count read(int fd, void* data, std::uint64_t n) noexcept {
    if (flags_ == RWF_NOWAIT) {
      const sys::Count got = sys::read_flagged(fd, data, n, RWF_NOWAIT);
      if (!is_refused(got)) return got;
      flags_ = 0;
    }
    // What poll announces is there; a tty with VMIN or VTIME would wait for more.
    int there = 0;
    if (!is_ready(fd, POLLIN)) return -EAGAIN;
    const bool is_known = ::ioctl(fd, FIONREAD, &there) == 0;
    return sys::read(fd, data, is_known ? std::min(n, static_cast<std::uint64_t>(std::max(there, 1))) : n);
  }

  sys::Count write(int fd, const void* data, std::uint64_t n, SigpipeBlock& sigpipe) noexcept {
    if (flags_ != 0) {
      const sys::Count put = write_flagged(fd, data, n, sigpipe);
      if (!is_refused(put)) return put;
      flags_ = 0;
      look_at(fd);
    }
    sigpipe.begin();
    sigpipe.suspect();
    const int unblocked = again_ ? again_.get() : fd;
    if (piece_ == 0) return sys::write(unblocked, data, n);
    return is_ready(fd, POLLOUT) ? sys::write(fd, data, std::min(n, piece_)) : -EAGAIN;
  }

 private:
  // The flags are not for this descriptor or kernel, or a sandbox forbids the call that takes them.
  static constexpr bool is_refused(sys::Count result) noexcept {
    return result == -EOPNOTSUPP || result == -ENOSYS || result == -EPERM;
  }
  sys::Count write_flagged(int fd, const void* data, std::uint64_t n, SigpipeBlock& sigpipe) noexcept {
    if (may_ask_for_no_signal_) {
      const sys::Count put = sys::write_flagged(fd, data, n, RWF_NOWAIT | rwf_nosignal);
      if (!is_refused(put)) return put;
      may_ask_for_no_signal_ = false;
    }
    sigpipe.begin();
    sigpipe.suspect();
    return sys::write_flagged(fd, data, n, RWF_NOWAIT);
  }
  // FIFOs, ttys, old kernels, and pipes that were spliced. A tty can be opened again without a part in its flags; a pty's
  // master can't (that would make another pty).
  void look_at(int fd) noexcept {
    unsigned number = 0;
    const sys::Count status = sys::status_flags(fd);
    struct stat found;
    const bool in_memory = sys::stat(fd, found) == 0 && S_ISCHR(found.st_mode) && major(found.st_rdev) == 1;
    if (in_memory || (status >= 0 && (status & O_NONBLOCK) != 0)) {  // /dev/null and its kind never block
      piece_ = 0;
    } else if (::isatty(fd) == 1) {
      if (::ioctl(fd, TIOCGPTN, &number) != 0) again_ = reopen(fd, O_WRONLY | O_NONBLOCK | O_NOCTTY);
      piece_ = again_ ? 0 : 1;
    }
  }

  int flags_ = RWF_NOWAIT;  // 0: refused
  bool may_ask_for_no_signal_ = true;
  std::uint64_t piece_ =
      PIPE_BUF;  // what fits where poll says writable: into a tty one byte. 0: a write does not block
  OwnedFd again_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
