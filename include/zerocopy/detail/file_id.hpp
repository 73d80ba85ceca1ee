// zerocopy/detail/file_id.hpp: what an open descriptor is and which inode it has. Neither changes while it is open, so
// handles ask once, when they are made, and transfers between them ask nothing. It owns nothing.
#pragma once

#include <zerocopy/config.hpp>

#include <sys/stat.h>  // fstat

#include <cstdint>  // std::uint64_t

namespace zerocopy::inline ZEROCOPY_ABI::detail {

struct FileId {
  enum class Type : std::uint8_t { unknown, regular, block_device, directory, pipe, socket, other };

  dev_t device = 0;
  ino_t inode = 0;
  Type type = Type::unknown;

  static constexpr FileId of(const struct stat& status) noexcept {
    return {status.st_dev, status.st_ino, type_of(status.st_mode)};
  }
  // Of unknown type where the descriptor can't be asked; the call that uses it says why.
  static FileId of(int fd) noexcept {
    struct stat status;
    return fd >= 0 && ::fstat(fd, &status) == 0 ? of(status) : FileId{};
  }
  [[nodiscard]] constexpr bool is_same_inode(const FileId& other) const noexcept {
    return type != Type::unknown && other.type != Type::unknown && device == other.device && inode == other.inode;
  }

 private:
  static constexpr Type type_of(mode_t mode) noexcept {
    switch (mode & S_IFMT) {
      case S_IFREG: return Type::regular;
      case S_IFBLK: return Type::block_device;
      case S_IFIFO: return Type::pipe;
      case S_IFSOCK: return Type::socket;
      case S_IFDIR: return Type::directory;
      default: return Type::other;
    }
  }
};

// Asks a handle for the id that it keeps.
struct KnownId {
  template <class Handle>
  static const FileId& of(const Handle& handle) noexcept {
    return handle.id();
  }
};

// How far a file reaches: its size. A block device has none in fstat, and can't become shorter.
constexpr std::uint64_t reach(const struct stat& status) noexcept {
  return S_ISBLK(status.st_mode) ? UINT64_MAX : static_cast<std::uint64_t>(status.st_size);
}

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
