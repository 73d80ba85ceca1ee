// zerocopy/detail/strategy/copy_file_range.hpp: copy_file_range(2), file to file inside the kernel.
// It believes the file's size, so an end that it reports is proved by a read.
#pragma once

#include <zerocopy/detail/settle.hpp>  // settle
#include <zerocopy/detail/tools.hpp>   // Tools

namespace zerocopy::inline ZEROCOPY_ABI::detail {

struct CopyFileRange {
  static constexpr Strategy name = Strategy::copy_file_range;
  static constexpr bool raises_sigpipe = false;
  static constexpr bool pins_source = false;
  static constexpr bool pins_sink = false;

  [[gnu::always_inline]] static Outcome hop(const Cursor& from, const Cursor& to, std::uint64_t budget,
                                            Tools&) noexcept {
    off_t in;
    off_t out;
    const sys::Count n = sys::copy_file_range(from.fd, from.call_offset(in), to.fd, to.call_offset(out), budget);
    return settle(name, Place::sink, from, to, n, budget);
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
