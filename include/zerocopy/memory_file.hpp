// zerocopy/memory_file.hpp: a file in memory (memfd) with seals.
// It owns its descriptor. A sealed one can't be cut by anybody, so that its mapping needs no guard and no lease.
#pragma once

#include <zerocopy/config.hpp>
#include <zerocopy/detail/handle.hpp>  // error reports
#include <zerocopy/fd.hpp>             // OwnedFd, BorrowedFd
#include <zerocopy/file.hpp>           // File, FileRange

#include <fcntl.h>     // F_ADD_SEALS
#include <sys/mman.h>  // memfd_create

#include <cstdint>       // std::uint64_t
#include <string>        // names
#include <system_error>  // std::error_code
#include <utility>       // std::move

namespace zerocopy::inline ZEROCOPY_ABI {

/// What can no longer be done to a MemoryFile, by any process (F_ADD_SEALS in fcntl(2)). Without a field set: nothing.
struct Seals {
  bool shrink = false;        ///< F_SEAL_SHRINK: can't be cut
  bool grow = false;          ///< F_SEAL_GROW: can't be lengthened
  bool write = false;         ///< F_SEAL_WRITE: the bytes can't change
  bool seal = false;          ///< F_SEAL_SEAL: no more seals can be set
  bool future_write = false;  ///< F_SEAL_FUTURE_WRITE: as `write`, but mappings made before still can (Linux 5.1)

  friend constexpr bool operator==(const Seals&, const Seals&) noexcept = default;
};

/// A file in memory, without a name in any file system (memfd_create(2), Linux 3.17). As a source or a sink it is a
/// File: from its current position, which moves; `range()` means an explicit position.
/// Every function that can fail has a twin with a trailing `std::error_code&`.
/// Thread safety: distinct objects are independent; one object as the kernel's descriptor, the position is shared.
class MemoryFile {
 public:
  /// Takes a memfd over that was received, say, by `Socket::receive_fd`. What it is shows at the first use.
  explicit MemoryFile(OwnedFd fd) noexcept : file_(std::move(fd)) {}

  /// Makes one of `size` zero bytes that can be sealed; `name` is what /proc/self/fd shows, not unique.
  /// Errors: `invalid_argument` (more than 249 bytes of name, a NUL inside), `too_many_files_open`, `file_too_large`.
  [[nodiscard]] static MemoryFile create(const std::string& name, std::uint64_t size = 0) {
    return detail::or_throw([&](std::error_code& ec) { return create(name, size, ec); },
                            [&] { return "make a memory file '" + name + "'"; });
  }
  [[nodiscard]] static MemoryFile create(const std::string& name, std::error_code& ec) { return create(name, 0, ec); }
  [[nodiscard]] static MemoryFile create(const std::string& name, std::uint64_t size, std::error_code& ec) {
    MemoryFile file{OwnedFd()};
    if (!detail::is_c_string(name)) {
      ec = detail::system_error_code(EINVAL);
      return file;
    }
    OwnedFd fd(detail::checked(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING), ec));
    if (ec) return file;
    MemoryFile made(std::move(fd));
    if (size != 0) made.resize(size, ec);
    return ec ? std::move(file) : std::move(made);
  }

  /// Seals for good: can't be cut, lengthened, changed or sealed further. No writable mapping may be alive, nor a
  /// shared MappedFile that was made before sealing (the kernel counts it as writable).
  /// Errors: `device_or_resource_busy` (such a mapping is alive: destroy it first), `operation_not_permitted` (sealed
  /// against seals, or not opened for writing), `invalid_argument` (not a memfd).
  void seal() { seal(everything); }
  void seal(std::error_code& ec) noexcept { seal(everything, ec); }
  /// Adds the seals that are set: `seal({.shrink = true})`. Errors: as above; busy only for `write`.
  void seal(Seals seals) {
    std::error_code ec;
    seal(seals, ec);
    if (!ec) return;
    const char* why = ec.value() == EBUSY ? " (a mapping that could write to it is alive)" : "";
    detail::throw_error(ec, what("seal") + why);
  }
  void seal(Seals seals, std::error_code& ec) noexcept {
    unsigned bits = 0;
    if (seals.shrink) bits |= F_SEAL_SHRINK;
    if (seals.grow) bits |= F_SEAL_GROW;
    if (seals.write) bits |= F_SEAL_WRITE;
    if (seals.seal) bits |= F_SEAL_SEAL;
    if (seals.future_write) bits |= F_SEAL_FUTURE_WRITE;
    detail::checked(::fcntl(as_fd().get(), F_ADD_SEALS, bits), ec);
  }

  /// The seals that are set (F_GET_SEALS). Errors: `invalid_argument` where the descriptor is not a memfd.
  [[nodiscard]] Seals seals() const {
    return detail::or_throw([&](std::error_code& ec) { return seals(ec); }, [&] { return what("seals of"); });
  }
  [[nodiscard]] Seals seals(std::error_code& ec) const noexcept {
    const int bits = detail::checked(::fcntl(as_fd().get(), F_GET_SEALS), ec);
    if (ec) return {};
    return {.shrink = (bits & F_SEAL_SHRINK) != 0,
            .grow = (bits & F_SEAL_GROW) != 0,
            .write = (bits & F_SEAL_WRITE) != 0,
            .seal = (bits & F_SEAL_SEAL) != 0,
            .future_write = (bits & F_SEAL_FUTURE_WRITE) != 0};
  }

  /// See `File::size`, `File::resize`, `File::position` and `File::seek`. A seal makes `resize` fail with
  /// `operation_not_permitted`.
  [[nodiscard]] std::uint64_t size() const { return file_.size(); }
  [[nodiscard]] std::uint64_t size(std::error_code& ec) const noexcept { return file_.size(ec); }
  void resize(std::uint64_t bytes) { file_.resize(bytes); }
  void resize(std::uint64_t bytes, std::error_code& ec) noexcept { file_.resize(bytes, ec); }
  [[nodiscard]] std::uint64_t position() const { return file_.position(); }
  [[nodiscard]] std::uint64_t position(std::error_code& ec) const noexcept { return file_.position(ec); }
  void seek(std::uint64_t position) { file_.seek(position); }
  void seek(std::uint64_t position, std::error_code& ec) noexcept { file_.seek(position, ec); }

  /// `length` bytes at `offset` as a source or a sink. The MemoryFile must stay alive while the range is used.
  [[nodiscard]] FileRange range(std::uint64_t offset, std::uint64_t length = to_end) const& noexcept {
    return file_.range(offset, length);
  }
  FileRange range(std::uint64_t offset, std::uint64_t length = to_end) const&& = delete;  // would borrow a temporary

  [[nodiscard]] BorrowedFd as_fd() const& noexcept { return file_.as_fd(); }
  BorrowedFd as_fd() const&& = delete;  // would borrow from a temporary

  /// Gives the descriptor up without closing it.
  [[nodiscard]] OwnedFd release() && noexcept { return std::move(file_).release(); }

 private:
  static constexpr Seals everything{.shrink = true, .grow = true, .write = true, .seal = true};

  friend struct detail::KnownId;
  [[nodiscard]] const detail::FileId& id() const noexcept { return detail::KnownId::of(file_); }

  std::string what(const char* tried) const { return detail::on_descriptor(tried, as_fd().get()); }

  File file_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI
