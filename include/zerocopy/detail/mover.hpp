// zerocopy/detail/mover.hpp: carries out what the machine asks for, one hop at a time, and keeps the cursors. It is what
// every driver shares: one that blocks, one that is stepped, one that runs on a ring. It waits for nothing.
//
// A ring driver asks the same machine and ends in the same `complete`: a hop becomes a submission (sendfile: poll_add and
// the call itself; splice, read, send: their opcodes with the cursor's offset), and
// `settle(strategy, place, from, to, cqe->res, asked)` turns its completion into the outcome.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/candidates.hpp>                // possible
#include <zerocopy/detail/diagnosis.hpp>                 // truncation, blame
#include <zerocopy/detail/drain.hpp>                     // drain_buffer, drain_pipe, spill
#include <zerocopy/detail/plan.hpp>                      // Plan
#include <zerocopy/detail/strategy/copy_file_range.hpp>  // the strategies
#include <zerocopy/detail/strategy/mmap_write.hpp>
#include <zerocopy/detail/strategy/read_write.hpp>
#include <zerocopy/detail/strategy/reflink.hpp>
#include <zerocopy/detail/strategy/send_zerocopy.hpp>
#include <zerocopy/detail/strategy/sendfile.hpp>
#include <zerocopy/detail/strategy/splice.hpp>
#include <zerocopy/detail/strategy/vmsplice.hpp>

namespace zerocopy::inline ZEROCOPY_ABI::detail {

template <Kind From, Kind To>
class Mover {
 public:
  explicit Mover(Job& job) noexcept : job_(job) {}

  // One hop. `most`: what one call may be asked for.
  [[gnu::always_inline]] void move(Action action, std::uint64_t most) noexcept {
    if (action == Action::first) {
      move<Action::first>(most);
    } else {
      drain(action, most);
    }
  }

  // The same under a time limit. Into a blocking socket no flag keeps some hops from blocking: they are asked for no more
  // than there is room for, in a call that SO_SNDTIMEO ends.
  void move_cut(Action action, std::uint64_t most) noexcept {
    if (!needs_cut(action)) return move(action, most);
    SendTimeout& timeout = job_.tools.send_timeout();
    if (!timeout.begin(job_.to.fd))
      return report(action, Outcome::unsupported(Cause(Errc::would_block_uncut), Side::sink));
    const std::uint64_t room = timeout.room();
    if (room > 0) return move(action, std::min(most, room));
    report(action, Outcome::blocked(Side::sink));
  }

  // What a hop did: the cursors, the bytes in flight and the machine learn of it.
  template <Action action>
  [[gnu::always_inline]] void complete(Outcome outcome) noexcept {
    // A FIFO can get a new reader, a socket that was shut down stays so: there the last call tells.
    if (outcome.partial || (may_be_socket(To) && is_socket(job_.to.kind))) job_.tools.sigpipe.suspect(outcome.partial);
    if (outcome.verdict != Verdict::moved) return report(action, outcome);
    account<action>(outcome);
    job_.machine.on(action, outcome);
  }

  // Which end an EAGAIN of a direct hop came from. Without a byte in the source nothing moves, also into a sink that has
  // room, and the source's end may be all that is still to come.
  [[nodiscard]] Side find_blocked_side() const noexcept {
    return is_ready(job_.from.fd, POLLIN) && !is_ready(job_.to.fd, POLLOUT) ? Side::sink : Side::source;
  }

  // The end of the transfer: what is in flight is given back to a source that can be rewound, else it is stranded.
  [[gnu::always_inline]] TransferResult conclude() noexcept {
    if (job_.from.pinned || job_.to.pinned) unpin();
    TransferResult result = report();
    if constexpr (From == Kind::in_flight) {
      result.consumed = result.delivered;  // the Stranded that it came from takes the rest back
    } else {
      if (job_.tools.has_resources()) settle_in_flight(result);
    }
    if (may_be_socket(To) && result.delivered == 0 && job_.machine.setup.limit > 0) keep_promise();
    return result;
  }
  // The counts as they are.
  [[gnu::always_inline]] TransferResult report() const noexcept {
    const Machine& machine = job_.machine;
    TransferResult result;
    result.delivered = machine.delivered();
    result.consumed = machine.consumed();
    result.reason = machine.reason();
    if (machine.cause()) result.error = machine.cause().code();
    result.side = machine.side();
    result.strategy = machine.mover();
    result.calls = machine.calls();
    if constexpr (is_memory(From)) result.source_in_use = is_still_read();
    if (!machine.trail().empty()) result.trail = machine.trail();
    return result;
  }

 private:
  // Up to here a transfer is one call, and its source's size is looked at only if that call is cut short.
  static constexpr std::uint64_t small = 256 * 1024;

  template <Action action>
  [[gnu::always_inline]] void move(std::uint64_t most) noexcept {
    const std::uint64_t wanted = job_.machine.budget(action);
    const std::uint64_t budget = is_message_sink() ? wanted : std::min(wanted, most);
    // What a transfer that takes more than a call is measured against, should its source become shorter.
    if constexpr (action == Action::first && (is_file(From) || From == Kind::any))
      if (wanted > small || job_.machine.calls() > 0) Diagnosis(job_).look_at_size();
    if constexpr (action == Action::first) {
      first(budget);
    } else {
      complete<action>(perform<action>(budget));
    }
  }
  [[gnu::noinline]] void drain(Action action, std::uint64_t most) noexcept {
    if (action == Action::drain_buffer) return move<Action::drain_buffer>(most);
    if (action == Action::drain_pipe) return move<Action::drain_pipe>(most);
    move<Action::spill>(most);
  }

  [[nodiscard]] bool needs_cut(Action action) const noexcept {
    if (!may_be_socket(To) || !job_.tools.cut_sends) return false;
    if (action != Action::first) return action == Action::drain_pipe;
    const Strategy strategy = job_.machine.strategy();
    return strategy == Strategy::sendfile || (strategy == Strategy::splice && job_.from.kind == Kind::pipe);
  }

  // A message is not cut into pieces.
  [[nodiscard]] bool is_message_sink() const noexcept {
    if constexpr (To == Kind::socket || To == Kind::any) return job_.to.kind == Kind::messages;
    return false;
  }

  template <Action action>
  Outcome perform(std::uint64_t budget) noexcept {
    if constexpr (action == Action::drain_buffer) return drain_buffer(job_.to, budget, job_.tools, is_more(budget));
    if constexpr (action == Action::drain_pipe) {
      guard_sigpipe();
      return drain_pipe(job_.to, budget, job_.tools, job_.tools.more);
    }
    if constexpr (action == Action::spill) return spill(budget, job_.tools);
  }
  // A hop that moved nothing.
  [[gnu::noinline]] void report(Action action, Outcome outcome) noexcept {
    if (outcome.cause.is(EINVAL) && move_around_direct(action)) return;
    if (outcome.verdict == Verdict::blocked && action == Action::first)
      Diagnosis(job_).look_at_size();  // before a wait
    if (outcome.side == Side::none && outcome.cause) outcome.side = Diagnosis(job_).blame(outcome.cause);
    if (outcome.verdict == Verdict::end && action == Action::first && Diagnosis(job_).is_truncated())
      return job_.machine.stop(StopReason::source_truncated, Cause(Errc::source_truncated), Side::source);
    job_.machine.on(action, outcome);
  }
  // The same hop once more, where an O_DIRECT end may have refused it.
  bool move_around_direct(Action action) noexcept {
    const Strategy strategy = job_.machine.strategy();
    const bool copies = strategy == Strategy::read_write || strategy == Strategy::mmap_write;
    if (action == Action::first && !copies) return false;
    SecondOpening& source = job_.tools.source_again();
    SecondOpening& sink = job_.tools.sink_again();
    if (source.is_in_use() || sink.is_in_use()) return false;
    const bool around_source = action == Action::first && source.enter(job_.from);
    const bool around_sink = sink.enter(job_.to);
    if (!around_source && !around_sink) return false;
    std::uint64_t most = sys::most_per_call;
    if (around_source) most = std::min(most, SecondOpening::to_boundary(job_.from.offset));
    if (around_sink) most = std::min(most, SecondOpening::to_boundary(job_.to.offset));
    move(action, most);
    source.leave(job_.from);
    sink.leave(job_.to);
    return true;
  }
  [[nodiscard]] bool is_more(std::uint64_t budget) const noexcept {
    return job_.tools.more || budget < job_.machine.budget(Action::drain_buffer);
  }

  // The current strategy's hop. Direct hops are inlined, so that what they did stays in registers.
  [[gnu::always_inline]] void first(std::uint64_t budget) noexcept {
    Outcome outcome;
    if (try_first<Sendfile>(budget, outcome) || try_first<CopyFileRange>(budget, outcome) ||
        try_first<Splice>(budget, outcome))
      return complete<Action::first>(outcome);
    first_aside(budget);
  }
  [[gnu::noinline]] void first_aside(std::uint64_t budget) noexcept {
    Outcome outcome = Outcome::unsupported(Cause(Errc::not_for_this_pair));
    (void)(try_first<Reflink>(budget, outcome) || try_first<MmapWrite>(budget, outcome) ||
           try_first<SendZerocopy>(budget, outcome) || try_first<Vmsplice>(budget, outcome) ||
           try_first<ReadWrite>(budget, outcome));
    complete<Action::first>(outcome);
  }
  template <class S>
  [[gnu::always_inline]] bool try_first([[maybe_unused]] std::uint64_t budget,
                                        [[maybe_unused]] Outcome& outcome) noexcept {
    // read_write also proves ends, whatever else is possible.
    if constexpr (possible<From, To>().contains(S::name) || S::name == Strategy::read_write) {
      if (job_.machine.strategy() != S::name) return false;
      if constexpr (S::raises_sigpipe) guard_sigpipe();
      if (const sys::Count error = place<S>(); error < 0) {
        outcome = Outcome::unsupported(Cause(static_cast<int>(-error)));
      } else {
        outcome = S::hop(job_.from, job_.to, budget, job_.tools);
      }
      return true;
    } else {
      return false;
    }
  }
  // A file's position is kept by the kernel but for the strategies that need offsets.
  template <class S>
  sys::Count place() noexcept {
    if constexpr (From == Kind::file || From == Kind::any) {
      if (const sys::Count error = place(job_.from, S::pins_source); error < 0) return error;
    }
    if constexpr (To == Kind::file || To == Kind::any) return place(job_.to, S::pins_sink);
    return 0;
  }
  // What went before with a promise of more waits for nothing any more where nothing follows.
  void keep_promise() const noexcept {
    if (job_.to.kind == Kind::socket && !job_.options.more && !job_.machine.cause()) flush_promised(job_.to.fd);
  }
  void unpin() noexcept {
    (void)job_.from.unpin();
    (void)job_.to.unpin();
  }
  [[gnu::always_inline]] static sys::Count place(Cursor& end, bool pins) noexcept {
    if (end.positioned == pins || end.kind != Kind::file || end.stays_pinned) return 0;
    return pins ? end.pin() : end.unpin();
  }
  bool rewind_source(std::uint64_t n) noexcept {
    if (!is_rewindable(job_.from.kind)) return false;
    if (job_.from.positioned || is_memory(job_.from.kind)) return true;
    return sys::seek(job_.from.fd, -static_cast<std::int64_t>(n), SEEK_CUR) >= 0;
  }
  void settle_in_flight(TransferResult& result) noexcept {
    const std::uint64_t buffered = job_.machine.buffered();
    const std::uint64_t piped = job_.machine.piped();
    if (buffered + piped > 0 && !rewind_source(buffered + piped)) {
      result.stranded.emplace(std::move(job_.tools.store()), buffered, piped);
      return;
    }
    result.consumed = result.delivered;
    job_.tools.store().recycle(piped);
  }

  [[gnu::always_inline]] void guard_sigpipe() noexcept {
    constexpr bool always = To == Kind::socket || To == Kind::pipe;
    constexpr bool sometimes = To == Kind::any || To == Kind::file;
    if constexpr (always || sometimes)
      if (always || job_.to.kind == Kind::pipe || is_socket(job_.to.kind)) job_.tools.sigpipe.begin();
  }

  template <Action action>
  void account(const Outcome& outcome) noexcept {
    const std::uint64_t n = outcome.count;
    if constexpr (action == Action::first) {
      job_.from.template advance<From>(n);
      if (outcome.place == Place::sink) job_.to.template advance<To>(n);
      if (outcome.place == Place::buffer) job_.tools.store().put_into_buffer(n);
    } else if constexpr (action == Action::spill) {
      job_.tools.store().put_into_buffer(n);
    } else {
      job_.to.template advance<To>(n);
      if constexpr (action == Action::drain_buffer) job_.tools.store().take_from_buffer(n);
    }
  }

  // Whether the kernel may still read the caller's memory.
  [[nodiscard]] bool is_still_read() const noexcept {
    if (job_.tools.outstanding_sends() > 0) return true;
    if (job_.machine.mover() != Strategy::vmsplice || is_file(job_.to.kind)) return false;
    int queued = 0;
    return job_.to.kind != Kind::pipe || ::ioctl(job_.to.fd, FIONREAD, &queued) != 0 || queued > 0;
  }

  Job& job_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
