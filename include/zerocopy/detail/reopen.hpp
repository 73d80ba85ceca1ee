// zerocopy/detail/reopen.hpp: another open file description of what a descriptor is open on.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/fd.hpp>  // OwnedFd

#include <fcntl.h>  // open

#include <array>     // the path
#include <charconv>  // std::to_chars

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// Through /proc/self/fd; empty where that is refused. proc(5)
inline OwnedFd reopen(int fd, int flags) noexcept {
  std::array<char, 32> path{"/proc/self/fd/"};
  *std::to_chars(path.data() + 14, path.data() + path.size() - 1, fd).ptr = '\0';
  return OwnedFd(::open(path.data(), flags | O_CLOEXEC));
}

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
