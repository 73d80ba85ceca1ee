// zerocopy/pipe.hpp: a pipe and its two ends.
// Each end owns its descriptor; a Pipe owns both ends. Pipes are O_NONBLOCK and O_CLOEXEC from birth;
// `blocking = true` or `set_blocking(true)` undoes the first.
#pragma once

#include <zerocopy/config.hpp>
#include <zerocopy/detail/handle.hpp>  // error reports, set_blocking
#include <zerocopy/fd.hpp>             // OwnedFd, BorrowedFd

#include <fcntl.h>      // F_SETPIPE_SZ, O_NONBLOCK
#include <sys/ioctl.h>  // FIONREAD
#include <unistd.h>     // pipe2

#include <algorithm>     // std::min
#include <bit>           // std::bit_ceil
#include <cstddef>       // std::size_t
#include <string>        // messages
#include <system_error>  // std::error_code
#include <utility>       // std::move

namespace zerocopy::inline ZEROCOPY_ABI {

/// How `Pipe::create` makes a pipe.
struct PipeOptions {
  std::size_t capacity = 0;  ///< bytes; 0 for the kernel's default (64 KiB), else as `set_capacity`
  bool blocking = false;     ///< both ends without O_NONBLOCK
};

namespace detail {

inline std::size_t pipe_capacity(int fd, std::error_code& ec) noexcept {
  const int bytes = checked(::fcntl(fd, F_GETPIPE_SZ), ec);
  return ec ? 0 : static_cast<std::size_t>(bytes);
}

// Above pipe-max-size or the user's quota growing is EPERM (or ENOMEM, on a machine short of memory): the next
// smaller power of two is asked for, until one is granted or the pipe is that large already.
inline std::size_t set_pipe_capacity(int fd, std::size_t bytes, std::error_code& ec) noexcept {
  constexpr std::size_t largest = std::size_t{1} << 30;  // the kernel answers in an int
  const std::size_t current = pipe_capacity(fd, ec);
  if (ec) return 0;
  for (std::size_t wanted = std::bit_ceil(std::min(bytes, largest));; wanted /= 2) {
    if (wanted == current) return current;
    const int given = checked(::fcntl(fd, F_SETPIPE_SZ, static_cast<int>(wanted)), ec);
    if (!ec) return static_cast<std::size_t>(given);
    const bool less_may_do = (ec.value() == EPERM || ec.value() == ENOMEM) && wanted > current;
    if (!less_may_do) return current;
    ec.clear();
    if (wanted / 2 <= current) return current;
  }
}

// What both ends do. Not a type for users: they hold a PipeReader or a PipeWriter.
class PipeEnd {
 public:
  /// Takes the descriptor over as it is, O_NONBLOCK or not; a FIFO works too.
  explicit PipeEnd(OwnedFd fd) noexcept : fd_(std::move(fd)) {}

  [[nodiscard]] BorrowedFd as_fd() const& noexcept { return fd_.as_fd(); }
  BorrowedFd as_fd() const&& = delete;  // would borrow from a temporary

  /// Gives the descriptor up without closing it.
  [[nodiscard]] OwnedFd release() && noexcept { return std::move(fd_); }

  /// Closes this end now: the reader then sees the end after the last byte, the writer sees EPIPE.
  void close() noexcept { fd_.reset(); }

  /// The bytes that the pipe can hold when its slots are full (F_GETPIPE_SZ, Linux 2.6.35). Errors:
  /// `bad_file_descriptor`, also where the descriptor is not a pipe.
  [[nodiscard]] std::size_t capacity() const {
    return or_throw([&](std::error_code& ec) { return capacity(ec); }, [&] { return what("capacity of"); });
  }
  [[nodiscard]] std::size_t capacity(std::error_code& ec) const noexcept { return pipe_capacity(fd_.get(), ec); }

  /// Asks for a capacity of `bytes` and returns what the kernel really gave (F_SETPIPE_SZ): rounded up to a power of
  /// two of at least a page; above /proc/sys/fs/pipe-max-size or the user's quota the largest power of two that is
  /// granted, or the capacity as it was. Errors: `device_or_resource_busy` (the pipe holds more bytes than that),
  /// `bad_file_descriptor` (not a pipe). The capacity belongs to the pipe, both ends see it.
  std::size_t set_capacity(std::size_t bytes) {
    return or_throw([&](std::error_code& ec) { return set_capacity(bytes, ec); },
                    [&] { return what("set the capacity of") + " to " + std::to_string(bytes) + " bytes"; });
  }
  std::size_t set_capacity(std::size_t bytes, std::error_code& ec) noexcept {
    return set_pipe_capacity(fd_.get(), bytes, ec);
  }

  /// Sets or clears O_NONBLOCK on this end (fcntl(2)); descriptors made by dup or fork change too.
  void set_blocking(bool blocking) {
    or_throw([&](std::error_code& ec) { set_blocking(blocking, ec); }, [&] { return what("set O_NONBLOCK of"); });
  }
  void set_blocking(bool blocking, std::error_code& ec) noexcept { detail::set_blocking(fd_.get(), blocking, ec); }

 protected:
  std::string what(const char* tried) const { return on_descriptor(tried, fd_.get()); }

  OwnedFd fd_;
};

}  // namespace detail

/// The end of a pipe that is read, a source. See `detail::PipeEnd` for what it shares with the writer.
/// Thread safety: distinct objects are independent.
class PipeReader : public detail::PipeEnd {
 public:
  using PipeEnd::PipeEnd;

  /// The bytes in the pipe now (FIONREAD). Errors: `bad_file_descriptor`.
  [[nodiscard]] std::size_t readable_bytes() const {
    return detail::or_throw([&](std::error_code& ec) { return readable_bytes(ec); },
                            [&] { return what("bytes readable from"); });
  }
  [[nodiscard]] std::size_t readable_bytes(std::error_code& ec) const noexcept {
    int bytes = 0;
    detail::checked(::ioctl(fd_.get(), FIONREAD, &bytes), ec);
    return static_cast<std::size_t>(bytes);
  }
};

/// The end of a pipe that is written, a sink. Thread safety: distinct objects are independent.
class PipeWriter : public detail::PipeEnd {
 public:
  using PipeEnd::PipeEnd;
};

/// A pipe with both its ends (pipe(7)). Every function that can fail has a twin with a trailing `std::error_code&`.
/// Thread safety: distinct objects are independent.
class Pipe {
 public:
  Pipe(PipeReader reader, PipeWriter writer) noexcept : reader_(std::move(reader)), writer_(std::move(writer)) {}

  /// Makes a pipe, O_NONBLOCK and O_CLOEXEC from birth (pipe2(2)). Less capacity than asked for is no error: see
  /// `set_capacity`. Errors: `too_many_files_open`, `too_many_files_open_in_system`.
  [[nodiscard]] static Pipe create(PipeOptions options = {}) {
    return detail::or_throw([&](std::error_code& ec) { return create(options, ec); }, [] { return "make a pipe"; });
  }
  [[nodiscard]] static Pipe create(std::error_code& ec) noexcept { return create(PipeOptions{}, ec); }
  [[nodiscard]] static Pipe create(PipeOptions options, std::error_code& ec) noexcept {
    int ends[2] = {-1, -1};
    detail::checked(::pipe2(ends, O_CLOEXEC | (options.blocking ? 0 : O_NONBLOCK)), ec);
    Pipe pipe{PipeReader(OwnedFd(ends[0])), PipeWriter(OwnedFd(ends[1]))};
    if (!ec && options.capacity != 0) pipe.set_capacity(options.capacity, ec);
    return pipe;
  }

  [[nodiscard]] PipeReader& reader() & noexcept { return reader_; }
  [[nodiscard]] const PipeReader& reader() const& noexcept { return reader_; }
  /// `std::move(pipe).reader()` takes the end out of the Pipe.
  [[nodiscard]] PipeReader reader() && noexcept { return std::move(reader_); }
  [[nodiscard]] PipeWriter& writer() & noexcept { return writer_; }
  [[nodiscard]] const PipeWriter& writer() const& noexcept { return writer_; }
  [[nodiscard]] PipeWriter writer() && noexcept { return std::move(writer_); }

  /// See `PipeReader::capacity`.
  [[nodiscard]] std::size_t capacity() const { return reader_.capacity(); }
  [[nodiscard]] std::size_t capacity(std::error_code& ec) const noexcept { return reader_.capacity(ec); }
  /// See `PipeReader::set_capacity`.
  std::size_t set_capacity(std::size_t bytes) { return reader_.set_capacity(bytes); }
  std::size_t set_capacity(std::size_t bytes, std::error_code& ec) noexcept { return reader_.set_capacity(bytes, ec); }
  /// See `PipeReader::readable_bytes`.
  [[nodiscard]] std::size_t readable_bytes() const { return reader_.readable_bytes(); }
  [[nodiscard]] std::size_t readable_bytes(std::error_code& ec) const noexcept { return reader_.readable_bytes(ec); }

 private:
  PipeReader reader_;
  PipeWriter writer_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI
