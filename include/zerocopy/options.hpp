// zerocopy/options.hpp: what a caller can ask of a transfer, as one aggregate for designated initializers.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/file.hpp>      // to_end
#include <zerocopy/progress.hpp>  // Progress
#include <zerocopy/strategy.hpp>  // Strategy, StrategySet

#include <chrono>      // time limits
#include <cstddef>     // std::size_t
#include <cstdint>     // std::uint64_t
#include <optional>    // fields that may be absent
#include <stop_token>  // cancellation

namespace zerocopy::inline ZEROCOPY_ABI {

/// Whether the kernel may go on reading the source's pages after the transfer has returned.
enum class Aliasing : std::uint8_t {
  automatic,  ///< shared for files, snapshot for memory
  shared,     ///< as sendfile does: a later write to the source may show at the receiver
  snapshot,   ///< later writes to the source never show at the receiver
};

/// What a transfer into a tee does when one of its sinks fails.
enum class DeadSink : std::uint8_t {
  stop,   ///< it ends
  go_on,  ///< the other sinks get the rest; the failure is reported at the end
};

/// What to do, and how long it may take: an aggregate for designated initializers, which name fields in this order.
struct Options {
  /// Forces one strategy: it runs, or the transfer fails with `strategy_unavailable` and the trail says why.
  std::optional<Strategy> strategy{};
  /// The strategies that may be chosen.
  StrategySet allow = StrategySet::all();
  /// Bytes to move; `to_end`: until the source ends or the sink is full.
  std::uint64_t length = to_end;
  /// The longest time without a byte, from the start or from the last byte. 0: give up instead of waiting.
  std::optional<std::chrono::nanoseconds> idle_timeout{};
  /// The moment at which the transfer gives up. One that is past already moves nothing.
  std::optional<std::chrono::steady_clock::time_point> deadline{};
  /// Asks the transfer to stop.
  std::stop_token stop{};
  /// Hears how far the transfer is; the callable is borrowed.
  Progress on_progress{};
  Aliasing aliasing = Aliasing::automatic;
  /// Another transfer to this sink follows at once: a stream socket may hold back a last, partial packet.
  bool more = false;
  /// The most bytes that one system call is asked to move; without it as many as the kernel takes.
  std::optional<std::size_t> chunk_size{};
  /// Of a `Transfer`: bytes after which one step returns `progressed`, so that others have their turn. 0 counts as 1.
  std::size_t step_size = 1024 * 1024;
  /// Of a transfer into a `tee`.
  DeadSink dead_sink = DeadSink::stop;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI
