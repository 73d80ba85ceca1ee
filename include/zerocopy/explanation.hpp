// zerocopy/explanation.hpp: what explain() says, as data. Values: they own nothing and ask nothing.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/call_count.hpp>  // CallModel
#include <zerocopy/detail/route.hpp>       // Route
#include <zerocopy/result.hpp>             // Side

#include <array>         // the entries
#include <cstddef>       // std::size_t
#include <cstdint>       // std::uint64_t
#include <optional>      // what may be absent
#include <string>        // text
#include <string_view>   // kinds
#include <system_error>  // std::error_code

namespace zerocopy::inline ZEROCOPY_ABI {

/// System calls of a transfer.
struct ExpectedCalls {
  std::uint64_t moving = 0;    ///< that move bytes: TransferResult::calls
  std::uint64_t ending = 0;    ///< that return 0, and so find or prove where the source ends
  std::uint64_t switches = 0;  ///< between user and kernel mode: two a call, none from memory to memory
};

/// One strategy in an Explanation.
struct ExplainedStrategy {
  Strategy strategy{};
  /// Its place in the order in which transfer tries them, from 0; none if it is passed over.
  std::optional<std::size_t> position;
  /// Why it is passed over: an Errc, or the error that refuses the whole request. Empty for those in the order.
  std::error_code passed_over;
  /// In the order, but the kernel is known to refuse it here, with this errno: a transfer tries it and goes on to the next.
  std::error_code refused;
  /// It can serve this pair at all, if it is forced. Without this there are no costs.
  bool serves = false;
  /// How often the CPU copies each byte on the sender's way, in user and kernel mode. What the receiver copies is not here.
  /// copy_file_range: 1, or 0 where the file system shares extents. A device that is not known to gather counts as one
  /// that does not.
  unsigned cpu_copies = 0;
  /// How often devices move each byte: from the disk if it is not in the page cache, to the disk, to or from the network.
  unsigned dma_copies = 0;

  /// How many calls move `bytes` bytes, if the source has them and the sink has room whenever it is asked; a source that
  /// gives less and a sink that takes less make it more. fstat, fcntl, mmap and the two rt_sigprocmask are not counted.
  /// Errors: none; zeros where the strategy can't serve. Blocking: no, it is arithmetic. Thread safety: a value.
  [[nodiscard]] ExpectedCalls calls(std::uint64_t bytes) const noexcept {
    const detail::CallCount n = model.count(bytes);
    return {n.moving, n.ending, in_user_mode ? 0 : 2 * (n.moving + n.ending)};
  }

  detail::CallModel model;    // what `calls` counts by
  bool in_user_mode = false;  // from memory to memory
};

/// What a transfer would do: a range of ExplainedStrategy, all ten: first those in the order in which they are tried, then
/// those that are passed over. Thread safety: a value.
struct Explanation {
  /// One end of the transfer.
  struct End {
    std::string_view kind;  ///< "file", "file range", "pipe", "socket", "message socket", "device", "memory", ...
    int fd = -1;            ///< -1 for memory
    std::optional<std::uint64_t> offset;  ///< of a file range
  };

  End source;
  End sink;
  std::error_code error;   ///< what transfer would fail with before the first byte; empty if the request is sound
  Side side = Side::none;  ///< where `error` comes from
  std::uint64_t bytes =
      0;  ///< what `text()` counts calls for: all that would be moved, or 1 MiB where that can't be known
  std::optional<Route> route;  ///< of a connected TCP or UDP sink
  std::array<ExplainedStrategy, strategy_count> strategies;

  [[nodiscard]] auto begin() const noexcept { return strategies.begin(); }
  [[nodiscard]] auto end() const noexcept { return strategies.end(); }

  /// The entry of one strategy.
  [[nodiscard]] const ExplainedStrategy& operator[](Strategy wanted) const noexcept {
    std::size_t i = 0;
    while (i + 1 < strategies.size() && strategies[i].strategy != wanted) ++i;
    return strategies[i];
  }
  /// The one that would move the bytes: the first in the order that is not known to be refused. None if nothing would run.
  /// With Options::more the next in the order moves the last 64 KiB after sendfile, which can't promise that more follows.
  [[nodiscard]] std::optional<Strategy> chosen() const noexcept {
    if (error) return std::nullopt;
    for (const ExplainedStrategy& entry : strategies)
      if (entry.position && !entry.refused) return entry.strategy;
    return std::nullopt;
  }
  /// The calls of the chosen strategy that move `bytes` bytes: what TransferResult::calls will be. See
  /// ExplainedStrategy::calls. 0 if nothing would run.
  [[nodiscard]] std::uint64_t expected_calls(std::uint64_t for_bytes) const noexcept {
    const auto first = chosen();
    return first ? (*this)[*first].calls(for_bytes).moving : 0;
  }
  /// All of the above as an aligned table of a few lines; ends with a newline.
  /// Errors: std::bad_alloc. Blocking: no.
  [[nodiscard]] std::string text() const;
};

/// `explanation.text()`.
[[nodiscard]] inline std::string to_string(const Explanation& explanation) { return explanation.text(); }

}  // namespace zerocopy::inline ZEROCOPY_ABI

#include <zerocopy/detail/explanation_text.hpp>  // text()
