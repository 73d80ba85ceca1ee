// zerocopy/detail/strategy/send_zerocopy.hpp: send(2) with MSG_ZEROCOPY from memory, or from a window onto a file.
// The driver waits for the completions before it returns; where the kernel copies anyway (loopback), plain sends follow.
#pragma once

#include <zerocopy/detail/readable.hpp>  // readable
#include <zerocopy/detail/settle.hpp>    // settle

namespace zerocopy::inline ZEROCOPY_ABI::detail {

struct SendZerocopy {
  static constexpr Strategy name = Strategy::send_zerocopy;
  static constexpr bool raises_sigpipe = false;
  static constexpr bool pins_source = true;
  static constexpr bool pins_sink = false;

  static Outcome hop(const Cursor& from, const Cursor& to, std::uint64_t budget, Tools& tools) noexcept {
    if (const Cause cause = tools.zerocopy_sends().begin(to.fd); cause) return Outcome::unsupported(cause);
    const Readable bytes = readable(from, budget, tools);
    if (bytes.size <= 0) return settle(name, Place::sink, from, to, bytes.size, budget);
    const int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (tools.more ? MSG_MORE : 0);
    const sys::Count n = tools.zerocopy_sends().send(bytes.data, static_cast<std::uint64_t>(bytes.size), flags);
    return settle(name, Place::sink, from, to, n, static_cast<std::uint64_t>(bytes.size));
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
