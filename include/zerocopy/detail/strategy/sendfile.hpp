// zerocopy/detail/strategy/sendfile.hpp: sendfile(2), page cache to any descriptor. It has no output offset, so it never
// serves a range sink; into a pipe it would block whatever the flags, so pipes are left to splice.
#pragma once

#include <zerocopy/detail/settle.hpp>  // settle
#include <zerocopy/detail/tools.hpp>   // Tools

namespace zerocopy::inline ZEROCOPY_ABI::detail {

struct Sendfile {
  static constexpr Strategy name = Strategy::sendfile;
  static constexpr bool raises_sigpipe = true;
  static constexpr bool pins_source = false;
  static constexpr bool pins_sink = false;

  [[gnu::always_inline]] static Outcome hop(const Cursor& from, const Cursor& to, std::uint64_t budget,
                                            Tools&) noexcept {
    off_t at;
    const sys::Count n = sys::sendfile(to.fd, from.fd, from.call_offset(at), budget);
    return settle(name, Place::sink, from, to, n, budget);
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
