// zerocopy/mapped_file.hpp: a file, or a range of one, mapped into memory, to read or to read and write.
// A mapping owns its pages and a descriptor of the file, so that truncation can be seen. It never grows with the file.
// A load or store past the end of a file that was cut after mapping raises SIGBUS (mmap(2)): a system call that is
// given such bytes reports EFAULT or a short count instead. A sealed MemoryFile can't be cut.
#pragma once

#include <zerocopy/config.hpp>
#include <zerocopy/detail/handle.hpp>  // error reports
#include <zerocopy/fd.hpp>             // OwnedFd, BorrowedFd
#include <zerocopy/file.hpp>           // File, FileRange, Advice
#include <zerocopy/memory_file.hpp>    // MemoryFile

#include <fcntl.h>     // F_DUPFD_CLOEXEC, fallocate
#include <sys/mman.h>  // mmap, msync, madvise
#include <sys/stat.h>  // fstat
#include <unistd.h>    // sysconf

#include <cstddef>       // std::byte
#include <cstdint>       // std::uint64_t
#include <span>          // bytes()
#include <string>        // paths
#include <system_error>  // std::error_code
#include <utility>       // std::exchange

namespace zerocopy::inline ZEROCOPY_ABI {

/// Whose pages a mapping shows.
enum class Mapping : std::uint8_t {
  shared,        ///< the file's own: stores reach the file, and others' writes show (MAP_SHARED)
  private_copy,  ///< copied at the first store, which never reaches the file (MAP_PRIVATE)
};

/// How a file is mapped.
struct MapOptions {
  Mapping mapping = Mapping::shared;
  bool populate = false;  ///< read the whole range in now, MAP_POPULATE (Linux 2.5.46)
};

namespace detail {

// The pages of a mapping, page-aligned, and the bytes in them that were asked for.
class Region {
 public:
  Region() noexcept = default;
  Region(Region&& other) noexcept { *this = std::move(other); }
  Region& operator=(Region&& other) noexcept {
    if (this == &other) return *this;
    unmap();
    fd = std::move(other.fd);
    pages = std::exchange(other.pages, nullptr);
    skipped = std::exchange(other.skipped, 0);
    size = std::exchange(other.size, 0);
    file_offset = std::exchange(other.file_offset, 0);
    mapping = other.mapping;
    id = other.id;
    return *this;
  }
  ~Region() { unmap(); }

  std::byte* data() const noexcept { return pages == nullptr ? nullptr : static_cast<std::byte*>(pages) + skipped; }

  void advise(Advice advice, bool keeps_changes, std::error_code& ec) const noexcept {
    ec.clear();
    if (pages == nullptr) return;
    int number = MADV_NORMAL;
    switch (advice) {
      case Advice::normal: break;
      case Advice::sequential: number = MADV_SEQUENTIAL; break;
      case Advice::random: number = MADV_RANDOM; break;
      case Advice::will_need: number = MADV_WILLNEED; break;
      case Advice::dont_need:
        if (keeps_changes) return;  // MADV_DONTNEED throws the changed pages of a private mapping away
        number = MADV_DONTNEED;
        break;
      case Advice::no_reuse: return;  // means nothing for a mapping
    }
    checked(::madvise(pages, skipped + size, number), ec);
  }

  void sync(std::error_code& ec) const noexcept {
    ec.clear();
    if (pages != nullptr) checked(uninterrupted([&] { return ::msync(pages, skipped + size, MS_SYNC); }), ec);
  }

  OwnedFd fd;
  void* pages = nullptr;    // null for an empty mapping
  std::size_t skipped = 0;  // bytes before data(), less than a page
  std::size_t size = 0;
  std::uint64_t file_offset = 0;  // of data()
  Mapping mapping = Mapping::shared;
  FileId id;  // of a shared mapping's file; stores into a private one never reach it

 private:
  void unmap() noexcept {
    if (pages != nullptr) ::munmap(pages, skipped + size);
  }
};

// The bytes of the file that `range` means, checked against its size, since a load past the end is SIGBUS.
inline std::uint64_t mappable_length(const FileRange& range, std::error_code& ec) noexcept {
  struct stat status {};
  checked(::fstat(range.as_fd().get(), &status), ec);
  if (ec) return 0;
  const bool sized = S_ISREG(status.st_mode) || S_ISBLK(status.st_mode);
  if (!sized) return ec = system_error_code(S_ISDIR(status.st_mode) ? EISDIR : ENODEV), 0;
  const std::uint64_t size = file_size(range.as_fd().get(), ec);
  if (ec) return 0;
  const bool whole = range.length() == to_end;
  if (range.offset() > max_file_offset || (!whole && range.length() > max_file_offset - range.offset()))
    return ec = Errc::offset_overflow, 0;
  if (range.offset() > size || (!whole && range.length() > size - range.offset()))
    return ec = system_error_code(EINVAL), 0;
  return whole ? size - range.offset() : range.length();
}

// Maps `range`; the region keeps `fd`, a descriptor of the same file.
inline Region map_region(OwnedFd fd, const FileRange& range, int protection, MapOptions options, std::error_code& ec) {
  Region region;
  const std::uint64_t length = mappable_length(range, ec);
  if (ec) return region;
  const std::uint64_t page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t skipped = range.offset() % page;
  if (length > SIZE_MAX - page) return ec = system_error_code(ENOMEM), Region();
  if (length > 0) {
    const auto mapped = [&](int flags) {
      return ::mmap(nullptr, static_cast<std::size_t>(length + skipped), protection,
                    flags | (options.populate ? MAP_POPULATE : 0), fd.get(),
                    static_cast<off_t>(range.offset() - skipped));
    };
    void* pages = mapped(options.mapping == Mapping::shared ? MAP_SHARED : MAP_PRIVATE);
    // Before Linux 6.7 a memfd sealed against writes can't be mapped shared, not even to read. Its bytes never change:
    // a private mapping shows the same.
    if (pages == MAP_FAILED && errno == EPERM && protection == PROT_READ) pages = mapped(MAP_PRIVATE);
    if (pages == MAP_FAILED) return ec = system_error_code(errno), Region();
    region.pages = pages;
  }
  region.fd = std::move(fd);
  region.skipped = static_cast<std::size_t>(skipped);
  region.size = static_cast<std::size_t>(length);
  region.file_offset = range.offset();
  region.mapping = options.mapping;
  if (options.mapping == Mapping::shared) region.id = FileId::of(region.fd.get());
  return region;
}

inline Region map_range(const FileRange& range, int protection, MapOptions options, std::error_code& ec) {
  OwnedFd own(checked(::fcntl(range.as_fd().get(), F_DUPFD_CLOEXEC, 0), ec));
  return ec ? Region() : map_region(std::move(own), range, protection, options, ec);
}

inline Region map_path(const std::string& path, Access access, int protection, MapOptions options,
                       std::error_code& ec) {
  OwnedFd own = File::open(path, {.access = access}, ec).release();
  if (ec) return {};
  const FileRange whole(own.as_fd(), 0);
  return map_region(std::move(own), whole, protection, options, ec);
}

// "map 20 bytes at offset 4096 of descriptor 5, which has 5000 bytes"
inline std::string map_message(const FileRange& range) {
  std::error_code ec;
  const std::uint64_t size = file_size(range.as_fd().get(), ec);
  const std::string length = range.length() == to_end ? "what follows" : std::to_string(range.length()) + " bytes at";
  return "map " + length + " offset " + std::to_string(range.offset()) + on_descriptor(" of", range.as_fd().get()) +
         (ec ? std::string() : ", which has " + std::to_string(size) + " bytes");
}

}  // namespace detail

/// A mapping to read. Offset and length need not be page-aligned; an empty file or range gives an empty span and no
/// mapping. As a source it is `bytes()`, and it notices truncation.
/// Thread safety: const functions from any thread; distinct objects are independent.
/// Every function that can fail has a twin with a trailing `std::error_code&`.
class MappedFile {
 public:
  /// Opens `path` to read and maps the whole of it (mmap(2)).
  /// Errors: as `File::open`; `is_a_directory`, `no_such_device` (a pipe, a socket, a device without a size),
  /// `not_enough_memory`. Blocking: on the file system, with `populate` until all of it is read.
  [[nodiscard]] static MappedFile open(const std::string& path, MapOptions options = {}) {
    return detail::or_throw([&](std::error_code& ec) { return open(path, options, ec); },
                            [&] { return "map '" + path + "'"; });
  }
  [[nodiscard]] static MappedFile open(const std::string& path, std::error_code& ec) {
    return open(path, MapOptions{}, ec);
  }
  [[nodiscard]] static MappedFile open(const std::string& path, MapOptions options, std::error_code& ec) {
    return MappedFile(detail::map_path(path, Access::read, PROT_READ, options, ec));
  }

  /// Maps the range; `to_end` means to the end of the file at this moment. The mapping keeps a descriptor of its own,
  /// the File may go. (Closing that one drops the process's fcntl(2) record locks on the file, as any close does.)
  /// Errors: `invalid_argument` (beyond the end of the file: a load there is SIGBUS), `permission_denied` (not open to
  /// read), `is_a_directory`, `no_such_device`, `bad_file_descriptor`, `too_many_files_open`, `not_enough_memory`.
  [[nodiscard]] static MappedFile map(const FileRange& range, MapOptions options = {}) {
    return detail::or_throw([&](std::error_code& ec) { return map(range, options, ec); },
                            [&] { return detail::map_message(range); });
  }
  [[nodiscard]] static MappedFile map(const FileRange& range, std::error_code& ec) {
    return map(range, MapOptions{}, ec);
  }
  [[nodiscard]] static MappedFile map(const FileRange& range, MapOptions options, std::error_code& ec) {
    return MappedFile(detail::map_range(range, PROT_READ, options, ec));
  }

  /// Maps the whole file.
  [[nodiscard]] static MappedFile map(const File& file, MapOptions options = {}) { return map(file.range(0), options); }
  [[nodiscard]] static MappedFile map(const File& file, std::error_code& ec) { return map(file.range(0), ec); }
  [[nodiscard]] static MappedFile map(const File& file, MapOptions options, std::error_code& ec) {
    return map(file.range(0), options, ec);
  }
  [[nodiscard]] static MappedFile map(const MemoryFile& file, MapOptions options = {}) {
    return map(file.range(0), options);
  }
  [[nodiscard]] static MappedFile map(const MemoryFile& file, std::error_code& ec) { return map(file.range(0), ec); }
  [[nodiscard]] static MappedFile map(const MemoryFile& file, MapOptions options, std::error_code& ec) {
    return map(file.range(0), options, ec);
  }

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {region_.data(), region_.size}; }
  [[nodiscard]] std::size_t size() const noexcept { return region_.size; }
  [[nodiscard]] bool empty() const noexcept { return region_.size == 0; }
  /// Where in the file `bytes()[0]` lies.
  [[nodiscard]] std::uint64_t file_offset() const noexcept { return region_.file_offset; }
  [[nodiscard]] Mapping mapping() const noexcept { return region_.mapping; }

  /// The mapping's own descriptor of the file, to see its size.
  [[nodiscard]] BorrowedFd as_fd() const& noexcept { return region_.fd.as_fd(); }
  BorrowedFd as_fd() const&& = delete;  // would borrow from a temporary

  /// Says how the mapped bytes will be used (madvise(2)). Errors: `not_enough_memory`, `io_error`.
  void advise(Advice advice) const {
    detail::or_throw([&](std::error_code& ec) { this->advise(advice, ec); }, [] { return "advise on a mapped file"; });
  }
  void advise(Advice advice, std::error_code& ec) const noexcept { region_.advise(advice, false, ec); }

 private:
  explicit MappedFile(detail::Region region) noexcept : region_(std::move(region)) {}

  friend struct detail::KnownId;
  [[nodiscard]] const detail::FileId& id() const noexcept { return region_.id; }

  detail::Region region_;
};

/// A mapping to read and write. `Mapping::shared` needs a file open to read and write, and its stores reach the file;
/// `Mapping::private_copy` needs only read access, and its stores stay here. As a sink it is `bytes()`.
/// Thread safety: as the memory that it is. Every function that can fail has a twin with a trailing `std::error_code&`.
class WritableMappedFile {
 public:
  /// Opens `path` and maps the whole of it. Errors: as `MappedFile::open`; `permission_denied`.
  [[nodiscard]] static WritableMappedFile open(const std::string& path, MapOptions options = {}) {
    return detail::or_throw([&](std::error_code& ec) { return open(path, options, ec); },
                            [&] { return "map '" + path + "' to write"; });
  }
  [[nodiscard]] static WritableMappedFile open(const std::string& path, std::error_code& ec) {
    return open(path, MapOptions{}, ec);
  }
  [[nodiscard]] static WritableMappedFile open(const std::string& path, MapOptions options, std::error_code& ec) {
    const Access access = options.mapping == Mapping::shared ? Access::read_write : Access::read;
    return WritableMappedFile(detail::map_path(path, access, PROT_READ | PROT_WRITE, options, ec));
  }

  /// Makes `path`, or empties it, gives it `size` bytes of zero and maps them shared. Room on the disk is reserved
  /// (fallocate(2)) where the file system can, since a store into a full one is SIGBUS; for a sparse file use
  /// `File::create`, `resize` and `map`. Errors: as `File::create`; `no_space_on_device`, `file_too_large`: the file
  /// is then there, empty or part made. Blocking: on the file system.
  [[nodiscard]] static WritableMappedFile create(const std::string& path, std::uint64_t size) {
    return detail::or_throw([&](std::error_code& ec) { return create(path, size, ec); },
                            [&] { return "make and map '" + path + "' of " + std::to_string(size) + " bytes"; });
  }
  [[nodiscard]] static WritableMappedFile create(const std::string& path, std::uint64_t size, std::error_code& ec) {
    File file = File::create(path, ec);
    if (!ec) file.resize(size, ec);
    if (!ec && size > 0) {
      const auto reserve = [&] { return ::fallocate(file.as_fd().get(), 0, 0, static_cast<off_t>(size)); };
      detail::checked(detail::uninterrupted(reserve), ec);
      if (ec.value() == EOPNOTSUPP || ec.value() == ENOSYS) ec.clear();
    }
    return ec ? WritableMappedFile(detail::Region()) : map(file, ec);
  }

  /// Maps the range, as `MappedFile::map`. Errors: as there; `permission_denied` also for a shared mapping of a file
  /// that is not open to read and write, `operation_not_permitted` for one that is sealed against writes.
  [[nodiscard]] static WritableMappedFile map(const FileRange& range, MapOptions options = {}) {
    return detail::or_throw([&](std::error_code& ec) { return map(range, options, ec); },
                            [&] { return detail::map_message(range) + ", to write"; });
  }
  [[nodiscard]] static WritableMappedFile map(const FileRange& range, std::error_code& ec) {
    return map(range, MapOptions{}, ec);
  }
  [[nodiscard]] static WritableMappedFile map(const FileRange& range, MapOptions options, std::error_code& ec) {
    return WritableMappedFile(detail::map_range(range, PROT_READ | PROT_WRITE, options, ec));
  }

  /// Maps the whole file.
  [[nodiscard]] static WritableMappedFile map(const File& file, MapOptions options = {}) {
    return map(file.range(0), options);
  }
  [[nodiscard]] static WritableMappedFile map(const File& file, std::error_code& ec) { return map(file.range(0), ec); }
  [[nodiscard]] static WritableMappedFile map(const File& file, MapOptions options, std::error_code& ec) {
    return map(file.range(0), options, ec);
  }
  [[nodiscard]] static WritableMappedFile map(const MemoryFile& file, MapOptions options = {}) {
    return map(file.range(0), options);
  }
  [[nodiscard]] static WritableMappedFile map(const MemoryFile& file, std::error_code& ec) {
    return map(file.range(0), ec);
  }
  [[nodiscard]] static WritableMappedFile map(const MemoryFile& file, MapOptions options, std::error_code& ec) {
    return map(file.range(0), options, ec);
  }

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {region_.data(), region_.size}; }
  [[nodiscard]] std::size_t size() const noexcept { return region_.size; }
  [[nodiscard]] bool empty() const noexcept { return region_.size == 0; }
  /// Where in the file `bytes()[0]` lies.
  [[nodiscard]] std::uint64_t file_offset() const noexcept { return region_.file_offset; }
  [[nodiscard]] Mapping mapping() const noexcept { return region_.mapping; }

  /// The mapping's own descriptor of the file, to see its size.
  [[nodiscard]] BorrowedFd as_fd() const& noexcept { return region_.fd.as_fd(); }
  BorrowedFd as_fd() const&& = delete;  // would borrow from a temporary

  /// Waits until what was stored is on the disk (msync(2), MS_SYNC); nothing to do for a private mapping.
  /// Errors: `io_error`, `not_enough_memory`. Blocking: on the disk, can't be cut.
  void sync() const {
    detail::or_throw([&](std::error_code& ec) { sync(ec); }, [] { return "sync a mapped file"; });
  }
  void sync(std::error_code& ec) const noexcept { region_.sync(ec); }

  /// Says how the mapped bytes will be used (madvise(2)). A hint never loses a store: `dont_need` on a private mapping
  /// does nothing. Errors: `not_enough_memory`, `io_error`.
  void advise(Advice advice) const {
    detail::or_throw([&](std::error_code& ec) { this->advise(advice, ec); }, [] { return "advise on a mapped file"; });
  }
  void advise(Advice advice, std::error_code& ec) const noexcept {
    region_.advise(advice, region_.mapping == Mapping::private_copy, ec);
  }

 private:
  explicit WritableMappedFile(detail::Region region) noexcept : region_(std::move(region)) {}

  friend struct detail::KnownId;
  [[nodiscard]] const detail::FileId& id() const noexcept { return region_.id; }

  detail::Region region_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI
