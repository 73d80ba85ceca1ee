// zerocopy/file.hpp: a seekable file, and a range of one as a source or a sink with an explicit position.
// A File owns its descriptor and nothing else; it never buffers, and never changes the position but in seek().
#pragma once

#include <zerocopy/config.hpp>
#include <zerocopy/detail/file_id.hpp>  // FileId
#include <zerocopy/detail/handle.hpp>   // error reports, retry after EINTR
#include <zerocopy/fd.hpp>              // OwnedFd, BorrowedFd

#include <fcntl.h>      // open, posix_fadvise
#include <sys/ioctl.h>  // the size of a block device
#include <sys/stat.h>   // fstat
#include <unistd.h>     // lseek, ftruncate, fsync

#include <cstddef>       // std::size_t
#include <cstdint>       // std::uint64_t
#include <cstdlib>       // mkostemp
#include <string>        // paths
#include <system_error>  // std::error_code
#include <utility>       // std::move

namespace zerocopy::inline ZEROCOPY_ABI {

/// What a file is opened for.
enum class Access : std::uint8_t { read, write, read_write };

/// As a length: up to the end of the file, wherever that is when the bytes are moved or mapped.
inline constexpr std::uint64_t to_end = UINT64_MAX;

/// How `File::open` and `File::create` open a file, see open(2). O_CLOEXEC and O_NOCTTY are always set.
struct FileOptions {
  Access access = Access::read;
  bool append = false;     ///< O_APPEND: every write goes to the end
  bool create = false;     ///< O_CREAT: made if it does not exist
  bool exclusive = false;  ///< O_EXCL: with `create`, an existing file is an error
  bool truncate = false;   ///< O_TRUNC: an existing file is emptied; needs write access
  bool direct = false;     ///< O_DIRECT: past the page cache, aligned only
  mode_t mode = 0666;      ///< permissions of a file that is made, less the umask
};

/// How a range of a file or of a mapping will be used, see posix_fadvise(2) and madvise(2). A hint: no bytes change.
enum class Advice : std::uint8_t { normal, sequential, random, will_need, dont_need, no_reuse };

/// A file, an offset and a length in bytes: a source or a sink with an explicit position. The file's own position is
/// neither used nor moved. A value that borrows the descriptor; the transfer that uses it checks offset and length.
class FileRange {
 public:
  constexpr FileRange(BorrowedFd fd, std::uint64_t offset, std::uint64_t length = to_end) noexcept
      : fd_(fd), offset_(offset), length_(length) {}

  [[nodiscard]] constexpr BorrowedFd as_fd() const noexcept { return fd_; }
  [[nodiscard]] constexpr std::uint64_t offset() const noexcept { return offset_; }
  [[nodiscard]] constexpr std::uint64_t length() const noexcept { return length_; }

 private:
  BorrowedFd fd_;
  friend class File;
  friend struct detail::KnownId;
  [[nodiscard]] const detail::FileId& id() const noexcept { return id_; }

  std::uint64_t offset_;
  std::uint64_t length_;
  detail::FileId id_{};  // where the range was made from a File
};

namespace detail {

// BLKGETSIZE64; <linux/fs.h>, which names it, would leave macros like BLOCK_SIZE with everybody.
inline constexpr unsigned long block_device_size = _IOR(0x12, 114, std::size_t);

inline constexpr std::uint64_t max_file_offset = INT64_MAX;

// The file's bytes: st_size, or a block device's capacity. The position stays.
inline std::uint64_t file_size(int fd, std::error_code& ec) noexcept {
  struct stat status {};
  checked(::fstat(fd, &status), ec);
  if (ec) return 0;
  if (!S_ISBLK(status.st_mode)) return static_cast<std::uint64_t>(status.st_size);
  std::uint64_t capacity = 0;
  checked(::ioctl(fd, block_device_size, &capacity), ec);
  return capacity;
}

}  // namespace detail

/// A seekable file: regular, memfd, or a block device. As a source or a sink, a File means: from its current position,
/// which moves by what was delivered; `range()` means an explicit position.
/// Thread safety: distinct objects are independent; one object as the kernel's descriptor, the position is shared.
/// Every function has a twin with a trailing `std::error_code&`, which reports there instead of throwing
/// std::system_error; a factory's twin then returns an empty File.
class File {
 public:
  /// Takes the descriptor over as it is and asks once what it is (fstat(2)). Never fails; an error shows at the first use.
  explicit File(OwnedFd fd) noexcept : fd_(std::move(fd)), id_(detail::FileId::of(fd_.get())) {}

  /// Opens `path`, to read unless the options say otherwise (open(2)).
  /// Errors: `no_such_file_or_directory`, `permission_denied`, `is_a_directory` (to write), `file_exists` (exclusive);
  /// `invalid_argument` for a path with a NUL inside, or `truncate` without write access (Linux would empty the file).
  /// Blocking: on the file system; opening a FIFO waits for its other end.
  [[nodiscard]] static File open(const std::string& path, FileOptions options = {}) {
    return detail::or_throw([&](std::error_code& ec) { return open(path, options, ec); },
                            [&] { return "open '" + path + "'"; });
  }
  [[nodiscard]] static File open(const std::string& path, std::error_code& ec) { return open(path, FileOptions{}, ec); }
  [[nodiscard]] static File open(const std::string& path, FileOptions options, std::error_code& ec) {
    const bool writes = options.access != Access::read;
    if (!detail::is_c_string(path) || (options.truncate && !writes)) {
      ec = detail::system_error_code(EINVAL);
      return File(OwnedFd());
    }
    int flags = O_CLOEXEC | O_NOCTTY | (!writes ? O_RDONLY : options.access == Access::write ? O_WRONLY : O_RDWR);
    if (options.append) flags |= O_APPEND;
    if (options.create) flags |= O_CREAT;
    if (options.exclusive) flags |= O_EXCL;
    if (options.truncate) flags |= O_TRUNC;
    if (options.direct) flags |= O_DIRECT;
    const auto call = [&] { return ::open(path.c_str(), flags, options.mode); };
    return File(OwnedFd(detail::checked(detail::uninterrupted(call), ec)));
  }

  /// Makes `path`, or empties it if it exists (`exclusive` makes that an error). `Access::read` counts as
  /// `Access::read_write`, since there is nothing to read in a file that was just emptied.
  /// Errors: as `open`; `no_space_on_device`. Blocking: on the file system.
  [[nodiscard]] static File create(const std::string& path, FileOptions options = {.access = Access::read_write}) {
    return detail::or_throw([&](std::error_code& ec) { return create(path, options, ec); },
                            [&] { return "create '" + path + "'"; });
  }
  [[nodiscard]] static File create(const std::string& path, std::error_code& ec) {
    return create(path, FileOptions{}, ec);
  }
  [[nodiscard]] static File create(const std::string& path, FileOptions options, std::error_code& ec) {
    if (options.access == Access::read) options.access = Access::read_write;
    options.create = true;
    options.truncate = true;
    return open(path, options, ec);
  }

  /// A file without a name in `dir`, to read and write, for this user only; gone when the last descriptor closes.
  /// O_TMPFILE (Linux 3.11), or mkostemp(3) and unlink(2) where the file system has none.
  /// Errors: `no_such_file_or_directory`, `not_a_directory`, `permission_denied`; `invalid_argument` for a NUL inside.
  /// Blocking: on the file system.
  [[nodiscard]] static File temporary(const std::string& dir = "/tmp") {
    return detail::or_throw([&](std::error_code& ec) { return temporary(dir, ec); },
                            [&] { return "make a temporary file in '" + dir + "'"; });
  }
  [[nodiscard]] static File temporary(std::error_code& ec) { return temporary("/tmp", ec); }
  [[nodiscard]] static File temporary(const std::string& dir, std::error_code& ec) {
    if (!detail::is_c_string(dir)) {
      ec = detail::system_error_code(EINVAL);
      return File(OwnedFd());
    }
    const auto unnamed = [&] { return ::open(dir.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600); };
    OwnedFd fd(detail::checked(detail::uninterrupted(unnamed), ec));
    const bool no_tmpfile = ec.value() == EOPNOTSUPP || ec.value() == EISDIR || ec.value() == EINVAL;
    if (!ec || !no_tmpfile) return File(std::move(fd));
    std::string name = dir + "/zerocopy-XXXXXX";
    fd.reset(detail::checked(detail::uninterrupted([&] { return ::mkostemp(name.data(), O_CLOEXEC); }), ec));
    if (!ec) ::unlink(name.c_str());
    return File(std::move(fd));
  }

  /// The file's size in bytes; of a block device its capacity. Errors: `bad_file_descriptor`.
  [[nodiscard]] std::uint64_t size() const {
    return detail::or_throw([&](std::error_code& ec) { return size(ec); }, [&] { return what("size of"); });
  }
  [[nodiscard]] std::uint64_t size(std::error_code& ec) const noexcept { return detail::file_size(fd_.get(), ec); }

  /// Cuts the file to `bytes`, or lengthens it with a hole (ftruncate(2)). The position stays.
  /// Errors: `invalid_argument` (not writable, not a regular file), `file_too_large`; `operation_not_permitted` (seal).
  void resize(std::uint64_t bytes) {
    detail::or_throw([&](std::error_code& ec) { resize(bytes, ec); },
                     [&] { return what("resize") + " to " + std::to_string(bytes) + " bytes"; });
  }
  void resize(std::uint64_t bytes, std::error_code& ec) noexcept {
    if (bytes > detail::max_file_offset) {
      ec = detail::system_error_code(EFBIG);
      return;
    }
    detail::checked(detail::uninterrupted([&] { return ::ftruncate(fd_.get(), static_cast<off_t>(bytes)); }), ec);
  }

  /// Waits until data and metadata are on the disk (fsync(2)). Errors: `io_error`, `no_space_on_device`: data may be
  /// lost. Blocking: on the disk, can't be cut.
  void sync() const {
    detail::or_throw([&](std::error_code& ec) { sync(ec); }, [&] { return what("sync"); });
  }
  void sync(std::error_code& ec) const noexcept {
    detail::checked(detail::uninterrupted([&] { return ::fsync(fd_.get()); }), ec);
  }

  /// As `sync`, without metadata that is not needed to read the data back (fdatasync(2)).
  void sync_data() const {
    detail::or_throw([&](std::error_code& ec) { sync_data(ec); }, [&] { return what("sync the data of"); });
  }
  void sync_data(std::error_code& ec) const noexcept {
    detail::checked(detail::uninterrupted([&] { return ::fdatasync(fd_.get()); }), ec);
  }

  /// Says how `length` bytes at `offset` will be used (posix_fadvise(2)); `to_end` for all that follow.
  /// Errors: `invalid_argument` (past the largest offset), `invalid_seek` (a pipe).
  void advise(std::uint64_t offset, std::uint64_t length, Advice advice) const {
    detail::or_throw([&](std::error_code& ec) { advise(offset, length, advice, ec); },
                     [&] { return what("advise on"); });
  }
  void advise(std::uint64_t offset, std::uint64_t length, Advice advice, std::error_code& ec) const noexcept {
    ec.clear();
    if (length == 0) return;  // posix_fadvise takes 0 for "to the end"
    if (length == to_end) length = 0;
    if (offset > detail::max_file_offset || length > detail::max_file_offset - offset) {
      ec = Errc::offset_overflow;
      return;
    }
    const int error =
        ::posix_fadvise(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(length), fadvise_number(advice));
    if (error != 0) ec = detail::system_error_code(error);
  }

  /// Where the next transfer from or to this File begins (lseek(2)). Errors: `invalid_seek` for a pipe or a socket.
  [[nodiscard]] std::uint64_t position() const {
    return detail::or_throw([&](std::error_code& ec) { return position(ec); }, [&] { return what("position of"); });
  }
  [[nodiscard]] std::uint64_t position(std::error_code& ec) const noexcept {
    const off_t at = detail::checked(::lseek(fd_.get(), 0, SEEK_CUR), ec);
    return ec ? 0 : static_cast<std::uint64_t>(at);
  }

  /// Sets the position, from the start of the file; past the end is allowed. Descriptors made by dup or fork move too.
  /// Errors: `invalid_seek` for a pipe or a socket, `invalid_argument` past the largest offset.
  void seek(std::uint64_t position) {
    detail::or_throw([&](std::error_code& ec) { seek(position, ec); },
                     [&] { return what("seek in") + " to " + std::to_string(position); });
  }
  void seek(std::uint64_t position, std::error_code& ec) noexcept {
    if (position > detail::max_file_offset) {
      ec = Errc::offset_overflow;
      return;
    }
    detail::checked(::lseek(fd_.get(), static_cast<off_t>(position), SEEK_SET), ec);
  }

  /// `length` bytes at `offset` as a source or a sink. The File must stay alive while the range is used.
  [[nodiscard]] FileRange range(std::uint64_t offset, std::uint64_t length = to_end) const& noexcept {
    FileRange range(as_fd(), offset, length);
    range.id_ = id_;
    return range;
  }
  FileRange range(std::uint64_t offset, std::uint64_t length = to_end) const&& = delete;  // would borrow a temporary

  [[nodiscard]] BorrowedFd as_fd() const& noexcept { return fd_.as_fd(); }
  BorrowedFd as_fd() const&& = delete;  // would borrow from a temporary

  /// Gives the descriptor up without closing it.
  [[nodiscard]] OwnedFd release() && noexcept { return std::move(fd_); }

 private:
  static int fadvise_number(Advice advice) noexcept {
    switch (advice) {
      case Advice::normal: return POSIX_FADV_NORMAL;
      case Advice::sequential: return POSIX_FADV_SEQUENTIAL;
      case Advice::random: return POSIX_FADV_RANDOM;
      case Advice::will_need: return POSIX_FADV_WILLNEED;
      case Advice::dont_need: return POSIX_FADV_DONTNEED;
      case Advice::no_reuse: return POSIX_FADV_NOREUSE;
    }
    return POSIX_FADV_NORMAL;
  }
  std::string what(const char* tried) const { return detail::on_descriptor(tried, fd_.get()); }

  friend struct detail::KnownId;
  [[nodiscard]] const detail::FileId& id() const noexcept { return id_; }

  OwnedFd fd_;
  detail::FileId id_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI
