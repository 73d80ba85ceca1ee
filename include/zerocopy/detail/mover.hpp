// zerocopy/detail/mover.hpp: carries out what the machine asks for, one hop at a time, and keeps the cursors. It is what
// every driver shares: one that blocks, one that is stepped, one that runs on a ring. It waits for nothing.
//
// A ring driver asks the same machine and ends in the same `complete`: a hop becomes a submission (sendfile: poll_add and
// the call itself; splice, read, send: their opcodes with the cursor's offset), and
// `settle(strategy, place, from, to, cqe->res, asked)` turns its completion into the outcome.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/candidates.hpp>                // possible
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

  // Which end an EAGAIN of a direct hop came from: the one that is not ready.
  [[nodiscard]] Side find_blocked_side() const noexcept {
    return is_ready(job_.to.fd, POLLOUT) ? Side::source : Side::sink;
  }

  // The bytes that there are to move, where that is known.
  [[nodiscard]] std::optional<std::uint64_t> total() noexcept {
    const std::uint64_t limit = job_.machine.setup.limit;
    look_at_size();
    if (!is_file(job_.from.kind) || job_.source_size == 0 || job_.source_size == to_end)
      return limit == to_end ? std::nullopt : std::optional(limit);
    const std::uint64_t at = source_position();
    return std::min(limit, job_.source_size - std::min(job_.source_size, at));
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
      if (wanted > small || job_.machine.calls() > 0) look_at_size();
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
    if (outcome.verdict == Verdict::blocked && action == Action::first) look_at_size();  // before a wait
    if (outcome.side == Side::none && outcome.cause) outcome.side = blame(outcome.cause);
    if (outcome.verdict == Verdict::end && action == Action::first && is_truncated())
      return job_.machine.stop(StopReason::source_truncated, Cause(Errc::source_truncated), Side::source);
    job_.machine.on(action, outcome);
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
  void unpin() noexcept {
    (void)job_.from.unpin();
    (void)job_.to.unpin();
  }
  [[gnu::always_inline]] static sys::Count place(Cursor& end, bool pins) noexcept {
    if (end.positioned == pins || end.kind != Kind::file) return 0;
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

  // --- a source that became shorter -------------------------------------------------------------------------------

  [[nodiscard]] std::uint64_t source_position() const noexcept {
    if (job_.from.positioned) return job_.from.offset;
    return static_cast<std::uint64_t>(std::max<sys::Count>(sys::seek(job_.from.fd, 0, SEEK_CUR), 0));
  }
  void look_at_size() noexcept {
    if (job_.source_size != to_end || !is_file(job_.from.kind)) return;
    struct stat file;
    const bool has_size = job_.from.id.type != FileId::Type::block_device && sys::stat(job_.from.fd, file) == 0;
    job_.source_size = has_size ? static_cast<std::uint64_t>(file.st_size) : 0;
  }
  // Longer when the transfer began, and not merely a file whose size is a lie.
  [[nodiscard]] bool is_truncated() const noexcept {
    if (job_.from.kind == Kind::mapping) return job_.from.left > 0;
    if (!is_file(job_.from.kind) || job_.source_size == to_end || job_.machine.consumed() >= job_.source_size)
      return false;
    const sys::Count at =
        job_.from.positioned ? static_cast<sys::Count>(job_.from.offset) : sys::seek(job_.from.fd, 0, SEEK_CUR);
    struct stat file;
    if (at < 0 || sys::stat(job_.from.fd, file) < 0) return false;
    return static_cast<std::uint64_t>(at) < job_.source_size && file.st_size <= at;
  }

  // --- which end a direct hop failed at ---------------------------------------------------------------------------

  [[nodiscard]] Side blame(Cause cause) const noexcept {
    if (is_memory(job_.from.kind)) return Side::sink;
    // A fault is the sink's: its mapped file became shorter.
    if (is_memory(job_.to.kind)) return cause.is(EFAULT) ? Side::sink : Side::source;
    const bool sinks = cause.is(EPIPE) || cause.is(ENOSPC) || cause.is(EDQUOT) || cause.is(EFBIG) ||
                       cause.is(EMSGSIZE) || cause.is(EDESTADDRREQ) || cause.is(ETXTBSY);
    if (sinks) return Side::sink;
    if (cause.is(EISDIR)) return Side::source;
    if (cause.is(EBADF)) return is_readable_fd() ? Side::sink : Side::source;
    if (is_file(job_.from.kind)) return cause.is(EIO) && !is_readable_here() ? Side::source : Side::sink;
    return is_socket(job_.to.kind) ? Side::sink : Side::source;
  }
  [[nodiscard]] bool is_readable_fd() const noexcept {
    const sys::Count flags = sys::status_flags(job_.from.fd);
    return flags >= 0 && (flags & O_ACCMODE) != O_WRONLY && (flags & O_PATH) == 0;
  }
  [[nodiscard]] bool is_readable_here() const noexcept {
    const sys::Count at =
        job_.from.positioned ? static_cast<sys::Count>(job_.from.offset) : sys::seek(job_.from.fd, 0, SEEK_CUR);
    std::byte one;
    return at >= 0 && sys::pread(job_.from.fd, &one, 1, static_cast<std::uint64_t>(at)) >= 0;
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
