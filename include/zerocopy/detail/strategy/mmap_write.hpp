// zerocopy/detail/strategy/mmap_write.hpp: mmap(2) the source, write(2) or send(2) from the mapping: one copy.
// Only system calls read the mapping, and the file's size is looked at before each: a file that became shorter ends
// the source instead of raising SIGBUS.
#pragma once

#include <zerocopy/detail/copying.hpp>   // write_to
#include <zerocopy/detail/readable.hpp>  // readable
#include <zerocopy/detail/settle.hpp>    // settle

namespace zerocopy::inline ZEROCOPY_ABI::detail {

struct MmapWrite {
  static constexpr Strategy name = Strategy::mmap_write;
  static constexpr bool raises_sigpipe = false;
  static constexpr bool pins_source = true;
  static constexpr bool pins_sink = false;

  static Outcome hop(const Cursor& from, const Cursor& to, std::uint64_t budget, Tools& tools) noexcept {
    const Readable bytes = readable(from, budget, tools);
    if (bytes.size <= 0) return settle(name, Place::sink, from, to, bytes.size, budget);
    const auto asked = static_cast<std::uint64_t>(bytes.size);
    const sys::Count n = write_to(to, bytes.data, asked, tools, tools.more);
    return settle(name, Place::sink, from, to, n, asked);
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
