// zerocopy/detail/strategy/reflink.hpp: ioctl FICLONERANGE, the files share extents until one of them is written.
// All or nothing per call, and no signal stops it, so it goes by pieces. Offsets are block-aligned, the length too unless
// it ends at the end of the source; the kernel says EINVAL otherwise. Both ends need explicit offsets.
#pragma once

#include <zerocopy/detail/settle.hpp>  // settle
#include <zerocopy/detail/tools.hpp>   // Tools

namespace zerocopy::inline ZEROCOPY_ABI::detail {

struct Reflink {
  static constexpr Strategy name = Strategy::reflink;
  static constexpr bool raises_sigpipe = false;
  static constexpr bool pins_source = true;
  static constexpr bool pins_sink = true;
  static constexpr std::uint64_t piece = 64 * 1024 * 1024;

  static Outcome hop(const Cursor& from, const Cursor& to, std::uint64_t budget, Tools&) noexcept {
    struct stat file;
    if (const sys::Count error = sys::stat(from.fd, file); error < 0)
      return settle(name, Place::sink, from, to, error, budget);
    const std::uint64_t size = reach(file);
    if (from.offset >= size) return Outcome::end();
    const std::uint64_t n = std::min({budget, size - from.offset, piece});
    const sys::Count done = sys::clone_range(from.fd, from.offset, to.fd, to.offset, n);
    return settle(name, Place::sink, from, to, done < 0 ? done : static_cast<sys::Count>(n), std::min(budget, piece));
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
