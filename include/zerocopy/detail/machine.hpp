// zerocopy/detail/machine.hpp: the driver of a transfer as a state machine. Outcomes go in, actions come out; there is no
// system call in it, so that a test can walk every sequence of outcomes. It owns all counts: delivered, consumed, and
// what is in flight between them.
//
//   state                          next action
//   -----------------------------  ------------------------------------------------------------------
//   done                           finish
//   an end blocked                 wait for it
//   all delivered                  finish: complete
//   bytes in the buffer            drain_buffer       (a message sink: only when the message is whole, pipe included)
//   bytes in the pipe              drain_pipe, or spill into the buffer where the sink refuses the pipe
//   the source has ended           finish: complete without a length, else end_of_source
//   otherwise                      first: a hop of the current strategy, or of read_write to prove an end
//
// What every hop runs through is inlined by force: a small transfer is then a few hundred instructions in one function.
//
// Whatever is in flight is drained before anything is filled. consumed == delivered + buffered + piped, always.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/outcome.hpp>  // Outcome
#include <zerocopy/file.hpp>            // to_end
#include <zerocopy/strategy.hpp>        // Strategy

#include <bit>               // std::bit_width
#include <cstdint>           // std::uint64_t
#include <initializer_list>  // StrategyList
#include <utility>           // std::exchange

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// An ordered list of strategies in one word: four bits each, the first one lowest.
class StrategyList {
 public:
  constexpr StrategyList() noexcept = default;
  constexpr StrategyList(std::initializer_list<Strategy> list) noexcept {
    for (Strategy s : list) add(s);
  }
  constexpr void add(Strategy s) noexcept {
    const auto used = static_cast<int>(std::bit_width(packed_) + 3) / 4 * 4;
    packed_ |= (static_cast<std::uint64_t>(s) + 1) << used;
  }
  [[nodiscard]] constexpr bool empty() const noexcept { return packed_ == 0; }
  // Of a list that is not empty.
  [[nodiscard]] constexpr Strategy front() const noexcept { return static_cast<Strategy>((packed_ & 15) - 1); }
  constexpr void pop_front() noexcept { packed_ >>= 4; }

  [[nodiscard]] constexpr bool contains(Strategy s) const noexcept { return set().contains(s); }
  [[nodiscard]] constexpr StrategySet set() const noexcept {
    StrategySet all;
    for (StrategyList rest = *this; !rest.empty(); rest.pop_front()) all.insert(rest.front());
    return all;
  }
  friend constexpr bool operator==(StrategyList, StrategyList) noexcept = default;

 private:
  static_assert(strategy_count < 16);
  std::uint64_t packed_ = 0;
};

enum class Action : std::uint8_t {
  first,         // direct, or fill: a hop of `strategy()`
  drain_buffer,  // buffer to sink
  drain_pipe,    // pipe to sink
  spill,         // pipe to buffer
  wait,          // for `waiting_for()`
  finish,
};

// A strategy that a failing end can't surprise: what it calls the end of the source is the end.
// All the others may believe a file's size, which a pseudo-file or a FUSE file may get wrong, at the first byte and later;
// and a 0 from splicing a socket may be its urgent mark.
constexpr bool trusts_end(Strategy s, bool stream_source, bool moved_before) noexcept {
  return s == Strategy::read_write || (s == Strategy::splice && stream_source && moved_before);
}
// A short count means that the end is near: the proof of the end takes the place of another call.
constexpr bool is_capped_by_size(Strategy s) noexcept {
  return s == Strategy::copy_file_range || s == Strategy::reflink;
}

class Machine {
 public:
  // What it means that `limit` bytes have been delivered.
  enum class AtLimit : std::uint8_t {
    complete,
    source_ends,  // the source ended here when the transfer began
    sink_full,    // the sink takes no more, and more was asked for
    hand_over,    // sendfile ends here, the next strategy goes on to `then_limit`
  };
  struct Setup {
    std::uint64_t limit = to_end;  // what may be delivered: the length, or what the sink holds
    std::uint64_t asked = to_end;  // what the caller asked for
    std::uint64_t then_limit = 0;
    StrategyList order;   // what is still to be tried, the current one first; never empty
    bool forced = false;  // one strategy, no fallback
    AtLimit at_limit = AtLimit::complete;
    AtLimit then_at_limit = AtLimit::complete;
    bool message_sink = false;
    bool collect = false;        // bytes into one message: fill it whole, then send it
    bool stream_source = false;  // a pipe or a device
    bool memory_source = false;  // ends where it ends, nothing to prove
    bool refuse_pipe = false;    // drain the pipe by copying
  };

  constexpr Machine() noexcept = default;
  constexpr explicit Machine(const Setup& plan) noexcept : setup(plan) {}

  // Filled in by the plan before the first action.
  Setup setup;

  // A strategy that the plan rules out already.
  constexpr void pass_over(Strategy strategy, Cause cause) noexcept { trail_.add(strategy, cause); }
  // Bytes of an earlier transfer are all that is to be delivered; may be said again when they are.
  constexpr void resume(std::uint64_t buffered, std::uint64_t piped) noexcept {
    clear(done);
    set(ended);
    consumed_ += buffered + piped;
    buffered_ += buffered;
    piped_ += piped;
  }

  // --- what to do -------------------------------------------------------------------------------------------------

  [[gnu::always_inline]] constexpr Action next() noexcept {
    if (flags_ == 0 && consumed_ == delivered_)  // nearly every hop
      return delivered_ == setup.limit ? finish_at_limit() : Action::first;
    if (is(done)) return Action::finish;
    if (is(waiting)) return Action::wait;
    if (delivered_ == setup.limit) return finish_at_limit();
    if (setup.message_sink && piped_ > 0) return Action::spill;  // what is in flight is one message
    if ((buffered_ > 0 || is(empty_message)) && !is_collecting()) return Action::drain_buffer;
    if (piped_ > 0) return refuses_pipe() ? Action::spill : Action::drain_pipe;
    if (is(ended)) return finish_at_end();
    return Action::first;
  }
  [[nodiscard]] constexpr Strategy strategy() const noexcept {
    return is(proving) ? Strategy::read_write : setup.order.front();
  }
  [[nodiscard]] constexpr Side waiting_for() const noexcept { return waiting_; }
  // How often in a row readiness moved nothing.
  [[nodiscard]] constexpr int stalls() const noexcept { return stalls_; }
  [[nodiscard]] constexpr bool is_done() const noexcept { return is(done); }
  [[nodiscard]] constexpr bool is_waiting() const noexcept { return is(waiting); }
  // The most that the next hop may move.
  [[nodiscard]] [[gnu::always_inline]] constexpr std::uint64_t budget(Action action) const noexcept {
    switch (action) {
      case Action::first: return setup.limit - consumed_;  // where there is no limit: more than any source has
      case Action::drain_buffer: return least(buffered_, setup.limit - delivered_);
      case Action::drain_pipe: return least(piped_, setup.limit - delivered_);
      case Action::spill: return piped_;
      default: return 0;
    }
  }

  // --- what happened ----------------------------------------------------------------------------------------------

  [[gnu::always_inline]] constexpr void on(Action action, const Outcome& outcome) noexcept {
    if (outcome.verdict == Verdict::moved) return on_moved(action, outcome);
    on_rest(action, outcome);
  }
  // The side of a hop that blocked without telling.
  constexpr void wait_for(Side side) noexcept { waiting_ = side; }
  // The wait is over. `woken`: by the descriptor, not by the clock.
  constexpr void on_ready(bool woken) noexcept {
    clear(waiting);
    if (woken && stalls_ < 255) ++stalls_;
  }
  constexpr void stop(StopReason reason, Cause cause, Side side) noexcept {
    if (is(done)) return;
    set(done);
    reason_ = reason;
    cause_ = cause;
    side_ = side;
  }
  constexpr void fail(Cause cause, Side side) noexcept {
    const bool closed = side == Side::sink && (cause.is(EPIPE) || cause.is(ECONNRESET));
    stop(closed ? StopReason::sink_closed : StopReason::failed, cause, side);
  }
  // --- what to report ---------------------------------------------------------------------------------------------

  [[nodiscard]] constexpr std::uint64_t delivered() const noexcept { return delivered_; }
  [[nodiscard]] constexpr std::uint64_t consumed() const noexcept { return consumed_; }
  [[nodiscard]] constexpr std::uint64_t buffered() const noexcept { return buffered_; }
  [[nodiscard]] constexpr std::uint64_t piped() const noexcept { return piped_; }
  [[nodiscard]] constexpr std::uint64_t calls() const noexcept { return calls_; }
  [[nodiscard]] constexpr StopReason reason() const noexcept { return reason_; }
  [[nodiscard]] constexpr Cause cause() const noexcept { return cause_; }
  [[nodiscard]] constexpr Side side() const noexcept { return side_; }
  [[nodiscard]] constexpr const FallbackTrail& trail() const noexcept { return trail_; }
  [[nodiscard]] constexpr std::optional<Strategy> mover() const noexcept { return mover_; }

 private:
  // After so many wake-ups in a row that moved nothing a strategy is left: readiness that it can't use.
  static constexpr int most_stalls = 3;
  static constexpr int most_stalls_when_forced = 64;

  static constexpr std::uint64_t least(std::uint64_t a, std::uint64_t b) noexcept { return a < b ? a : b; }

  [[nodiscard]] constexpr bool is_collecting() const noexcept {
    return setup.collect && !is(ended) && delivered_ + buffered_ + piped_ < setup.limit;
  }

  [[nodiscard]] constexpr bool refuses_pipe() const noexcept { return is(pipe_refused) || setup.refuse_pipe; }

  [[gnu::always_inline]] constexpr Action finish_at_limit() noexcept {
    if (setup.at_limit != AtLimit::complete) return act_at_limit();
    set(done);  // complete is the reason until another is found
    return Action::finish;
  }
  constexpr Action act_at_limit() noexcept {
    if (setup.at_limit == AtLimit::source_ends) return finish_at_end();
    if (setup.at_limit == AtLimit::sink_full) return fail(Cause(Errc::sink_full), Side::sink), Action::finish;
    setup.limit = setup.then_limit;
    setup.at_limit = setup.then_at_limit;
    if (strategy() == Strategy::sendfile) take_next();
    return next();
  }
  constexpr Action finish_at_end() noexcept {
    stop(setup.asked == to_end ? StopReason::complete : StopReason::end_of_source, {}, Side::none);
    return Action::finish;
  }

  constexpr void on_rest(Action action, const Outcome& outcome) noexcept {
    switch (outcome.verdict) {
      case Verdict::blocked: return on_blocked(action, outcome.side);
      case Verdict::end: return action == Action::first ? on_end() : fail(Cause(EIO), Side::sink);
      case Verdict::unsupported: return on_unsupported(action, outcome);
      default: return fail(outcome.cause, outcome.side);
    }
  }
  [[gnu::always_inline]] constexpr void on_moved(Action action, const Outcome& outcome) noexcept {
    const std::uint64_t n = outcome.count;
    stalls_ = 0;
    ++calls_;
    switch (action) {
      case Action::first: return on_first_moved(outcome);
      case Action::drain_buffer:
        buffered_ -= n;
        delivered_ += n;
        clear(empty_message);
        mover_ = Strategy::read_write;
        return;
      case Action::drain_pipe:
        piped_ -= n;
        delivered_ += n;
        mover_ = filler_;
        return;
      case Action::spill:
        piped_ -= n;
        buffered_ += n;
        return;
      default: return;
    }
  }
  [[gnu::always_inline]] constexpr void on_first_moved(const Outcome& outcome) noexcept {
    consumed_ += outcome.count;
    switch (outcome.place) {
      case Place::sink:
        delivered_ += outcome.count;
        mover_ = strategy();
        if (setup.collect) return set(ended);  // the one message is sent
        break;
      case Place::buffer:
        buffered_ += outcome.count;
        if (outcome.count == 0 && setup.message_sink) set(empty_message);
        break;
      case Place::pipe:
        piped_ += outcome.count;
        filler_ = strategy();
        break;
    }
    if (is(proving)) return on_disproved();
    if (outcome.partial && is_capped_by_size(strategy()) && !setup.memory_source) {
      set(proving);
      set(only_short);
    }
  }
  // The proof of the end read more bytes.
  constexpr void on_disproved() noexcept {
    clear(proving);
    if (is(only_short)) return clear(only_short);  // the strategy was cut short, it may go on
    leave(Cause(Errc::end_not_seen));
    while (!is(done) && strategy() != Strategy::read_write) take_next();  // the others would believe the same file size
  }
  constexpr void on_end() noexcept {
    if (is(proving) || setup.memory_source || trusts_end(strategy(), setup.stream_source, consumed_ > 0)) {
      set(ended);
    } else {
      set(proving);
    }
  }
  constexpr void on_blocked(Action action, Side side) noexcept {
    set(waiting);
    waiting_ = side;
    const bool stalled = stalls_ >= (setup.forced ? most_stalls_when_forced : most_stalls);
    if (stalled && action == Action::first && strategy() != Strategy::read_write) {
      clear(waiting);
      stalls_ = 0;
      leave(Cause(EAGAIN));
    }
  }
  constexpr void on_unsupported(Action action, const Outcome& outcome) noexcept {
    if (action == Action::first) return leave(outcome.cause, outcome.side);
    if (action != Action::drain_pipe || refuses_pipe()) return fail(outcome.cause, outcome.side);
    set(pipe_refused);
    if (strategy() == filler_) leave(outcome.cause);
  }
  // The next strategy goes on at the same byte; what read_write says is final.
  constexpr void leave(Cause cause, Side side = Side::none) noexcept {
    if (strategy() == Strategy::read_write) return fail(cause, side);
    trail_.add(strategy(), cause);
    take_next();
  }
  // The last one is kept: it is what the transfer failed with.
  constexpr void take_next() noexcept {
    StrategyList rest = setup.order;
    rest.pop_front();
    if (rest.empty()) return fail(Cause(Errc::strategy_unavailable), Side::none);
    setup.order = rest;
  }

  enum Flag : std::uint8_t {
    done = 1,
    waiting = 2,         // for `waiting_`
    ended = 4,           // the source has no more
    proving = 8,         // read_write is asked whether the end is the end
    only_short = 16,     // ... because of a short count, not of a 0
    pipe_refused = 32,   // the sink takes no splice: the pipe is spilled
    empty_message = 64,  // in flight: a message without a byte
  };
  [[nodiscard]] constexpr bool is(Flag flag) const noexcept { return (flags_ & flag) != 0; }
  constexpr void set(Flag flag) noexcept { flags_ = static_cast<std::uint8_t>(flags_ | flag); }
  constexpr void clear(Flag flag) noexcept { flags_ = static_cast<std::uint8_t>(flags_ & ~flag); }

  std::uint64_t delivered_ = 0;
  std::uint64_t consumed_ = 0;
  std::uint64_t buffered_ = 0;
  std::uint64_t piped_ = 0;
  std::uint64_t calls_ = 0;
  FallbackTrail trail_;
  std::optional<Strategy> mover_;
  Strategy filler_ = Strategy::splice;  // of the bytes in the pipe
  std::uint8_t flags_ = 0;
  std::uint8_t stalls_ = 0;  // wake-ups in a row that moved nothing
  Side waiting_ = Side::none;
  Side side_ = Side::none;
  StopReason reason_ = StopReason::complete;
  Cause cause_{};
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
