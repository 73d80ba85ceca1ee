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
  Pace(const Options& options, bool paced) noexcept {
    if (options.chunk_size) largest_ = std::clamp<std::uint64_t>(*options.chunk_size, 1, sys::most_per_call);
    most_ = paced ? std::min(first, largest_) : largest_;
  }
  [[nodiscard]] std::uint64_t most() const noexcept { return most_; }

  // The last call took so long.
  void learn(Clock::duration took) noexcept {
    if (took < std::chrono::milliseconds(10)) most_ = std::min({most_ * 2, largest, largest_});
    if (took > std::chrono::milliseconds(25)) most_ = std::min(std::max(most_ / 2, smallest), largest_);
  }

 private:
  static constexpr std::uint64_t first = 256 * 1024;
  static constexpr std::uint64_t largest = 16 * 1024 * 1024;
  static constexpr std::uint64_t smallest = 64 * 1024;

  std::uint64_t most_;
  std::uint64_t largest_ = sys::most_per_call;
};

struct Job {
  // Calls make the cursors, so that they are made in place.
  template <class MakeFrom, class MakeTo>
  Job(const Options& wanted, MakeFrom make_from, MakeTo make_to) noexcept
      : options(wanted), from(make_from()), to(make_to()), limits(wanted), tools(wanted.more) {}

  const Options& options;
  Cursor from;
  Cursor to;
  Limits limits;
  Pace pace{options, limits.paced()};
  Machine machine;
  Tools tools;
  std::uint64_t source_size = to_end;  // of a file source, where it was looked at
  bool stepped = false;                // no call may block, whatever the descriptors' flags
  bool sink_is_source = false;         // of another job, which is to see the socket's error
  bool ignore_sink = false;            // a message of the caller's stands in its error queue
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
