// zerocopy/strategy.hpp: the names of the ways in which bytes can move, and a set of them.
#pragma once

#include <zerocopy/config.hpp>

#include <cstddef>           // std::size_t
#include <cstdint>           // std::uint16_t
#include <initializer_list>  // StrategySet's constructor
#include <string_view>       // to_string

namespace zerocopy::inline ZEROCOPY_ABI {

/// A way to move bytes from one descriptor (or memory) to another.
enum class Strategy : std::uint8_t {
  reflink,          ///< ioctl FICLONERANGE: the files share extents; xfs, btrfs (Linux 4.5)
  copy_file_range,  ///< copy_file_range(2): inside the kernel, on the server for network file systems (Linux 4.5)
  sendfile,         ///< sendfile(2): page cache to a descriptor
  splice,           ///< splice(2): through a pipe, any two descriptors
  vmsplice,         ///< vmsplice(2): pages of memory into a pipe; needs Aliasing::shared
  mmap_write,       ///< mmap(2) the source, write or send from the mapping: one copy
  send_zerocopy,    ///< send(2) with MSG_ZEROCOPY (Linux 4.14); needs Aliasing::shared from memory
  io_uring,         ///< reads and writes in flight at once on a ring
  direct_io,        ///< O_DIRECT: past the page cache
  read_write,       ///< read(2) and write(2) through a buffer: works everywhere, the baseline
};

inline constexpr std::size_t strategy_count = 10;

/// The enumerator's name, "sendfile" for Strategy::sendfile.
constexpr std::string_view to_string(Strategy s) noexcept {
  switch (s) {
    case Strategy::reflink: return "reflink";
    case Strategy::copy_file_range: return "copy_file_range";
    case Strategy::sendfile: return "sendfile";
    case Strategy::splice: return "splice";
    case Strategy::vmsplice: return "vmsplice";
    case Strategy::mmap_write: return "mmap_write";
    case Strategy::send_zerocopy: return "send_zerocopy";
    case Strategy::io_uring: return "io_uring";
    case Strategy::direct_io: return "direct_io";
    case Strategy::read_write: return "read_write";
  }
  return "unknown";
}

/// A set of strategies, a value of two bytes.
class StrategySet {
 public:
  constexpr StrategySet() noexcept = default;
  constexpr StrategySet(std::initializer_list<Strategy> strategies) noexcept {
    for (Strategy s : strategies) insert(s);
  }
  [[nodiscard]] static constexpr StrategySet all() noexcept {
    StrategySet set;
    set.bits_ = (1U << strategy_count) - 1U;
    return set;
  }

  [[nodiscard]] constexpr bool contains(Strategy s) const noexcept { return (bits_ & bit(s)) != 0; }
  [[nodiscard]] constexpr bool empty() const noexcept { return bits_ == 0; }
  constexpr StrategySet& insert(Strategy s) noexcept {
    bits_ = static_cast<std::uint16_t>(bits_ | bit(s));
    return *this;
  }
  constexpr StrategySet& erase(Strategy s) noexcept {
    bits_ = static_cast<std::uint16_t>(bits_ & ~bit(s));
    return *this;
  }

  friend constexpr StrategySet operator|(StrategySet a, StrategySet b) noexcept { return a.bits_ |= b.bits_, a; }
  friend constexpr StrategySet operator&(StrategySet a, StrategySet b) noexcept { return a.bits_ &= b.bits_, a; }
  /// What is in `a` and not in `b`.
  friend constexpr StrategySet operator-(StrategySet a, StrategySet b) noexcept {
    a.bits_ = static_cast<std::uint16_t>(a.bits_ & ~b.bits_);
    return a;
  }
  friend constexpr bool operator==(StrategySet a, StrategySet b) noexcept = default;

 private:
  static constexpr std::uint16_t bit(Strategy s) noexcept {
    return static_cast<std::uint16_t>(1U << static_cast<unsigned>(s));
  }
  std::uint16_t bits_ = 0;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI
