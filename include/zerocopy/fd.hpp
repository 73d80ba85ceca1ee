// zerocopy/fd.hpp: a descriptor that closes, and one that does not.
// Owned or borrowed is a type, never a flag. Neither converts to int by itself.
#pragma once

#include <zerocopy/config.hpp>

#include <unistd.h>  // close

#include <utility>  // std::exchange

namespace zerocopy::inline ZEROCOPY_ABI {

/// A descriptor that somebody else closes. It must stay open while the BorrowedFd is used.
/// As a source or a sink its kind (file, pipe, socket, ...) is found by fstat at run time; a seekable file moves
/// from its current position. -1 is allowed and gives `bad_file_descriptor` at the call that uses it.
/// Thread safety: a value; distinct objects are independent.
class BorrowedFd {
 public:
  constexpr explicit BorrowedFd(int fd) noexcept : fd_(fd) {}

  /// The descriptor's number, -1 if none.
  [[nodiscard]] constexpr int get() const noexcept { return fd_; }
  constexpr explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_;
};

/// A descriptor that is closed with the object. Close errors are not seen: call `File::sync()` for data that matters.
/// Blocking: the destructor is close(2), never retried after EINTR (close(2), "Dealing with error returns").
/// Thread safety: distinct objects are independent.
class OwnedFd {
 public:
  constexpr OwnedFd() noexcept = default;
  /// Takes ownership of `fd`; -1 is an empty object.
  constexpr explicit OwnedFd(int fd) noexcept : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(other.release()) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    reset(other.release());
    return *this;
  }
  ~OwnedFd() { reset(); }

  /// The descriptor's number, -1 if empty.
  [[nodiscard]] constexpr int get() const noexcept { return fd_; }
  constexpr explicit operator bool() const noexcept { return fd_ >= 0; }

  [[nodiscard]] BorrowedFd as_fd() const& noexcept { return BorrowedFd(fd_); }
  BorrowedFd as_fd() const&& = delete;  // would borrow from a temporary

  /// Gives the descriptor up without closing it.
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }

  /// Closes the descriptor and takes ownership of `fd`.
  void reset(int fd = -1) noexcept {
    const int old = std::exchange(fd_, fd);
    if (old >= 0) ::close(old);
  }

 private:
  int fd_ = -1;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI
