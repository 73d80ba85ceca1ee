// zerocopy/detail/job.hpp: everything that one transfer owns, in one place: both cursors, the machine with its counts, the
// bytes in flight and the other tools, and its limits. The planner, the mover and the drivers work on a Job.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/cursor.hpp>   // Cursor
#include <zerocopy/detail/machine.hpp>  // Machine
#include <zerocopy/detail/tools.hpp>    // Tools
#include <zerocopy/detail/wait.hpp>     // Limits
#include <zerocopy/options.hpp>         // Options

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// How much one call is asked for. Without a limit as much as the kernel takes; with one, calls that last about 10 ms.
class Pace {
 public:
  Pace(const Options& options, bool limited) noexcept {
    if (limited) most_ = first;
    if (options.chunk_size) ceiling_ = std::clamp<std::uint64_t>(*options.chunk_size, 1, sys::most_per_call);
  }
  [[nodiscard]] std::uint64_t most() const noexcept { return std::min(most_, ceiling_); }

  // The last call took so long.
  void learn(Clock::duration took) noexcept {
    if (took < std::chrono::milliseconds(10)) most_ = std::min(most_ * 2, largest);
    if (took > std::chrono::milliseconds(25)) most_ = std::max(most_ / 2, smallest);
  }

 private:
  static constexpr std::uint64_t first = 256 * 1024;
  static constexpr std::uint64_t largest = 16 * 1024 * 1024;
  static constexpr std::uint64_t smallest = 64 * 1024;

  std::uint64_t most_ = sys::most_per_call;
  std::uint64_t ceiling_ = sys::most_per_call;
};

struct Job {
  Job(const Cursor& source, const Cursor& sink, const Options& wanted) noexcept
      : options(wanted), limits(wanted), pace(wanted, limits.limited()), from(source), to(sink) {
    tools.more = wanted.more;
  }

  const Options& options;
  Limits limits;
  Pace pace;
  Cursor from;
  Cursor to;
  Machine machine;
  Tools tools;
  std::uint64_t source_size = to_end;  // of a file source, where it was looked at
  bool tried = false;                  // a hop was made, whatever it did
  bool ignore_sink = false;            // a message of the caller's stands in its error queue
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
