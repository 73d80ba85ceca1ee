// zerocopy/detail/call_count.hpp: into how many calls a strategy cuts a transfer, by arithmetic. It follows the machine and
// the strategies (machine.hpp, strategy/) as they are when the source has the bytes and the sink has room, which is what
// TransferResult::calls then counts. It makes no system call.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/job.hpp>      // Pace
#include <zerocopy/detail/machine.hpp>  // trusts_end

#include <cstdint>  // std::uint64_t

namespace zerocopy::inline ZEROCOPY_ABI::detail {

struct CallCount {
  std::uint64_t moving = 0;  // calls that move bytes
  std::uint64_t ending = 0;  // calls that return 0 and so find or prove the end of the source
};

// All numbers are bytes.
struct CallModel {
  Strategy strategy = Strategy::read_write;
  std::uint64_t limit = to_end;      // the transfer's own
  std::uint64_t own_limit = to_end;  // where the next strategy takes over, which can promise that more follows
  std::uint64_t hop = 0;             // the most that a first hop moves; 0: the strategy can't serve the pair
  std::uint64_t first_less =
      0;                    // the first hop moves less by so much: the bytes start inside a page, which fills a slot
  std::uint64_t drain = 0;  // the most that one call takes out of the buffer or the pipe; 0: the hop is direct
  std::uint64_t next_calls = 1;  // of the next strategy, for the bytes that it takes over
  Pace pace{Options{}, false};   // what one call is asked for
  bool learns = false;           // ... and it grows, since the transfer has a time limit
  bool stream_source = false;    // a pipe or a device
  bool ends_by_itself = false;   // memory, or bytes in flight: nothing to prove
  bool one_message = false;      // a message is not cut into pieces

  [[nodiscard]] CallCount count(std::uint64_t bytes) const noexcept {
    CallCount calls;
    if (hop == 0) return calls;
    const std::uint64_t all = std::min(bytes, limit);
    Pace now = pace;
    std::uint64_t left = std::min(all, own_limit);
    std::uint64_t less = std::min(first_less, hop - 1);
    bool last_was_full = false;
    while (left > 0) {
      const std::uint64_t size = std::min(hop - less, one_message ? to_end : now.most());
      if (less == 0 && has_settled(now) && left > size) {  // all of the same size but for the last one
        const std::uint64_t same = (left - 1) / size;
        calls.moving += same * calls_for(size);
        left -= same * size;
      }
      const std::uint64_t n = std::min(left, size);
      const std::uint64_t made = calls_for(n);
      if (learns)
        for (std::uint64_t i = 0; i < std::min<std::uint64_t>(made, enough_to_settle); ++i) now.learn({});
      calls.moving += made;
      left -= n;
      less = 0;
      last_was_full = n == size;
    }
    if (const std::uint64_t rest = all - std::min(all, own_limit); rest > 0)
      calls.moving += next_calls * ((rest - 1) / std::min(rest, now.most()) + 1);
    if (all < limit || limit == to_end) calls.ending = ending(all > 0, last_was_full);
    return calls;
  }

 private:
  static constexpr int enough_to_settle = 16;  // calls after which a pace that learns no longer changes

  [[nodiscard]] bool has_settled(const Pace& now) const noexcept {
    Pace next = now;
    if (learns) next.learn({});
    return next.most() == now.most();
  }
  [[nodiscard]] std::uint64_t calls_for(std::uint64_t n) const noexcept {
    return drain == 0 ? 1 : 1 + n / drain + (n % drain != 0 ? 1 : 0);
  }
  // The strategy's own call that returns 0, and read_write's that proves it where that could be a lie.
  [[nodiscard]] std::uint64_t ending(bool moved, bool last_was_full) const noexcept {
    if (ends_by_itself || (one_message && drain == 0 && moved)) return 0;
    const bool looks_at_size =
        strategy == Strategy::mmap_write || strategy == Strategy::send_zerocopy || strategy == Strategy::reflink;
    const bool cut_short =
        is_capped_by_size(strategy) && moved && !last_was_full;  // a short count is proof enough to ask
    const bool own = !looks_at_size && !cut_short;
    const bool proof = !trusts_end(strategy, stream_source, moved);
    return (own ? 1U : 0U) + (proof ? 1U : 0U);
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
