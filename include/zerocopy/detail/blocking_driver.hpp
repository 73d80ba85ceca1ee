// zerocopy/detail/blocking_driver.hpp: runs a transfer to its end in the calling thread: plan, hops, waits, result.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/mover.hpp>  // Mover
#include <zerocopy/detail/wait.hpp>   // Waiter, Limits

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// How much one call is asked for. Without a limit as much as the kernel takes; with one, calls that last about 10 ms.
class Pace {
 public:
  Pace(const Options& options, const Limits& limits) noexcept
      : limited_(limits.limited()), most_(limited_ ? first : sys::most_per_call) {
    if (options.chunk_size) ceiling_ = std::max<std::uint64_t>(*options.chunk_size, 1);
  }
  [[nodiscard]] std::uint64_t most() const noexcept { return std::min(most_, ceiling_); }

  template <class Hop>
  void timed(Hop hop) noexcept {
    const Clock::time_point before = Clock::now();
    hop();
    const auto took = Clock::now() - before;
    if (took < std::chrono::milliseconds(10)) most_ = std::min(most_ * 2, largest);
    if (took > std::chrono::milliseconds(25)) most_ = std::max(most_ / 2, smallest);
  }

 private:
  static constexpr std::uint64_t first = 256 * 1024;
  static constexpr std::uint64_t largest = 16 * 1024 * 1024;
  static constexpr std::uint64_t smallest = 64 * 1024;

  bool limited_;
  std::uint64_t most_;
  std::uint64_t ceiling_ = sys::most_per_call;
};

template <Kind From, Kind To>
class BlockingDriver {
 public:
  BlockingDriver(Mover<From, To>& mover, const Options& options, Limits& limits) noexcept
      : mover_(mover), machine_(mover.machine), limits_(limits), pace_(options, limits) {}

  // Before the first hop and between two; while waiting the waiter sees to it.
  void obey_limits() noexcept {
    if (limits_.stop_requested()) return machine_.stop(StopReason::stopped, Cause(Errc::stopped), Side::none);
    if (limits_.deadline_passed()) machine_.stop(StopReason::timed_out, Cause(Errc::timed_out), Side::none);
  }

  [[gnu::always_inline]] void run() noexcept {
    for (;;) {
      switch (machine_.next()) {
        case Action::first: move<Action::first>(); break;
        case Action::drain_buffer: move<Action::drain_buffer>(); break;
        case Action::drain_pipe: move<Action::drain_pipe>(); break;
        case Action::spill: move<Action::spill>(); break;
        case Action::wait: wait(machine_.waiting_for()); break;
        case Action::finish: return wait_for_completions();
      }
    }
  }

 private:
  template <Action action>
  [[gnu::always_inline]] void move() noexcept {
    if (!limits_.limited()) return mover_.template move<action>(pace_.most());
    const std::uint64_t before = machine_.consumed() + machine_.delivered();
    pace_.timed([&] { mover_.template move<action>(pace_.most()); });
    if (machine_.consumed() + machine_.delivered() != before) limits_.progressed();
    if (machine_.next() != Action::finish) obey_limits();
  }

  void wait(Side side) noexcept {
    if (side == Side::none) side = mover_.find_blocked_side();
    const Cursor& from = mover_.source();
    const Cursor& to = mover_.sink();
    const bool at_source = side == Side::source;
    // A sink that dies while the source is silent is noticed.
    const bool can_die = to.kind == Kind::pipe || to.kind == Kind::socket;
    const int sink = at_source && can_die && !ignore_sink_ ? to.fd : -1;
    const Woke woke = Waiter::wait(at_source ? from.fd : to.fd, at_source ? POLLIN : POLLOUT, sink,
                                   machine_.is_stalled(), limits_);
    switch (woke) {
      case Woke::ready: return machine_.on_ready(true);
      case Woke::retry: return machine_.on_ready(false);
      case Woke::sink_dead: return look_at_sink(to);
      case Woke::timed_out: return machine_.stop(StopReason::timed_out, Cause(Errc::timed_out), side);
      case Woke::stopped: return machine_.stop(StopReason::stopped, Cause(Errc::stopped), Side::none);
    }
  }
  void look_at_sink(const Cursor& to) noexcept {
    int error = 0;
    if (to.kind == Kind::socket) (void)sys::get_option(to.fd, SOL_SOCKET, SO_ERROR, error);
    pollfd now{to.fd, 0, 0};
    const bool hung_up = ::poll(&now, 1, 0) == 1 && (now.revents & POLLHUP) != 0;
    if (error != 0) return machine_.fail(Cause(error), Side::sink);
    if (to.kind == Kind::pipe || hung_up) return machine_.fail(Cause(EPIPE), Side::sink);
    ignore_sink_ = true;  // a message in the socket's error queue, which is the caller's
    machine_.on_ready(false);
  }

  // Pages that were sent with MSG_ZEROCOPY are the caller's again when their completions are here.
  [[gnu::always_inline]] void wait_for_completions() noexcept {
    if (mover_.tools.zerocopy_sends.outstanding() > 0) wait_for_all_completions();
  }
  void wait_for_all_completions() noexcept {
    auto& sends = mover_.tools.zerocopy_sends;
    const bool lost = machine_.reason() == StopReason::sink_closed;
    for (sends.reap(); sends.outstanding() > 0 && !lost; sends.reap()) {
      const Woke woke = Waiter::wait(mover_.sink().fd, 0, -1, false, limits_);
      if (woke == Woke::timed_out || woke == Woke::stopped) return;
    }
  }

  Mover<From, To>& mover_;
  Machine& machine_;
  Limits& limits_;
  Pace pace_;
  bool ignore_sink_ = false;
};

// Bytes of an earlier transfer that are the source now: where they are, and how many are left.
struct Held {
  InFlight& store;
  std::uint64_t& buffered;
  std::uint64_t& piped;
};

template <Kind From, Kind To>
[[gnu::always_inline]] inline void run_blocking(Cursor& from, Cursor& to, const Options& options, TransferResult& result,
                  const Held* held = nullptr) noexcept {
  Limits limits(options);
  Machine machine;
  Plan plan;
  if (!Planner<From, To>(from, to, options, limits, machine, plan).make()) {
    result.reason = StopReason::failed;
    result.error = plan.cause.code();
    result.side = plan.side;
    result.trail = machine.trail();
  } else if (machine.setup.limit > 0) {
    Mover<From, To> mover(machine, from, to, plan, options);
    if (held != nullptr) mover.tools.store = std::move(held->store), machine.resume(held->buffered, held->piped);
    BlockingDriver<From, To> driver(mover, options, limits);
    if (limits.limited()) driver.obey_limits();
    driver.run();
    mover.conclude(result);
    if (held != nullptr) {
      held->store = std::move(mover.tools.store);
      held->buffered = machine.buffered();
      held->piped = machine.piped();
    }
  }
  result.elapsed = Clock::now() - limits.start();
}

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
