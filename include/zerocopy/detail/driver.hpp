// zerocopy/detail/driver.hpp: runs a transfer: the plan, then hop after hop. `run` waits where an end blocks, `step` returns.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/mover.hpp>  // Mover
#include <zerocopy/detail/wait.hpp>   // Waiter, Limits
#include <zerocopy/step.hpp>          // Step

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// What to poll for before the next step.
struct Watch {
  int fd = -1;
  short events = 0;
  int other = -1;  // its death matters too: a sink behind a silent source
};

template <Kind From, Kind To>
class Driver {
 public:
  explicit Driver(Job& job) noexcept : job_(job) {}

  // Where the request is not sound, or time is up already, nothing will move.
  [[gnu::always_inline]] void begin() noexcept {
    Planner<From, To>(job_).make();
    if (job_.limits.paced() && job_.machine.setup.limit > 0) begin_pace();
  }

  // To the end, with waits.
  [[gnu::always_inline]] void run() noexcept {
    for (;;) {
      const Action action = job_.machine.next();
      if (action == Action::finish) break;
      if (action == Action::wait) {
        wait();
      } else {
        hop(action, job_.pace.most());
      }
    }
    if (job_.tools.outstanding_sends() > 0) wait_for_completions();
  }

  // Until an end blocks, `left` bytes are delivered, or the transfer is done. Never waits. What it delivers is taken off
  // `left`.
  Step step(std::uint64_t& left) noexcept {
    const std::uint64_t start = job_.machine.delivered();
    const Step result = step_on(left);
    const std::uint64_t moved = job_.machine.delivered() - start;
    left -= std::min(left, moved);  // a message is not cut
    job_.tools.sigpipe.end_step();
    if (result != Step::done && job_.tools.has_resources()) put_back_empty();
    return result;
  }
  [[nodiscard]] Watch watch() const noexcept {
    const Machine& machine = job_.machine;
    if (machine.is_done() && job_.tools.outstanding_sends() > 0) return {job_.to.fd, 0, -1};  // POLLERR announces them
    if (machine.is_done() || !machine.is_waiting()) return {};
    if (machine.waiting_for() == Side::sink) return {job_.to.fd, POLLOUT, -1};
    return {job_.from.fd, POLLIN, can_die() ? job_.to.fd : -1};
  }

  // A sink that dies while the source is silent is noticed.
  [[nodiscard]] bool can_die() const noexcept {
    return (job_.to.kind == Kind::pipe || job_.to.kind == Kind::socket) && !job_.ignore_sink;
  }
  void look_at_sink() noexcept {
    const Cursor& to = job_.to;
    int error = 0;
    if (to.kind == Kind::socket && !job_.sink_is_source) (void)sys::get_option(to.fd, SOL_SOCKET, SO_ERROR, error);
    pollfd now{to.fd, 0, 0};
    const bool hung_up = ::poll(&now, 1, 0) == 1 && (now.revents & POLLHUP) != 0;
    if (error != 0) return job_.machine.fail(Cause(error), Side::sink);
    if (to.kind == Kind::pipe || hung_up) return job_.machine.fail(Cause(EPIPE), Side::sink);
    job_.ignore_sink = true;  // a message in the socket's error queue, which is the caller's
    job_.machine.on_ready(false);
  }

 private:
  [[gnu::always_inline]] void hop(Action action, std::uint64_t most) noexcept {
    if (job_.limits.paced()) {
      paced_hop(action, most);
    } else {
      Mover<From, To>(job_).move(action, most);
    }
  }

  // --- time limits and progress -----------------------------------------------------------------------------------

  [[gnu::noinline]] void begin_pace() noexcept {
    if (job_.limits.limited()) obey_limits();
    if (job_.options.on_progress) job_.tools.meter().begin(Diagnosis(job_).total());
  }
  // Before the first hop and between two; while waiting the waiter sees to it.
  void obey_limits() noexcept {
    if (job_.limits.stop_requested()) return job_.machine.stop(StopReason::stopped, Cause(Errc::stopped), Side::none);
    if (job_.limits.deadline_passed()) job_.machine.stop(StopReason::timed_out, Cause(Errc::timed_out), Side::none);
  }
  // How fast bytes move, and that they moved, is learned from each hop.
  [[gnu::noinline]] void paced_hop(Action action, std::uint64_t most) noexcept {
    const Machine& machine = job_.machine;
    const std::uint64_t bytes = machine.consumed() + machine.delivered();
    const Clock::time_point start = Clock::now();
    Mover<From, To>(job_).move_cut(action, most);
    job_.pace.learn(Clock::now() - start);
    if (machine.consumed() + machine.delivered() != bytes) job_.limits.progressed();
    if (job_.machine.next() != Action::finish && job_.limits.limited()) obey_limits();
    tell_progress();
  }
  // At the end whatever the interval.
  [[gnu::noinline]] void tell_progress() noexcept {
    if (!job_.options.on_progress || job_.machine.setup.limit == 0) return;
    const bool at_end = job_.machine.next() == Action::finish;
    job_.tools.meter().tell(job_.options.on_progress, job_.machine.delivered(), at_end);
  }

  // --- waiting ----------------------------------------------------------------------------------------------------

  [[gnu::noinline]] void wait() noexcept {
    wait_for_end();
    if (job_.limits.paced() && job_.machine.is_done()) tell_progress();
  }
  void wait_for_end() noexcept {
    Side side = job_.machine.waiting_for();
    if (side == Side::none) side = Mover<From, To>(job_).find_blocked_side();
    // Completions that are here would end every wait at once.
    if (job_.tools.outstanding_sends() > 0) job_.tools.zerocopy_sends().reap();
    const bool completions = job_.tools.outstanding_sends() > 0;
    const int end = side == Side::source ? job_.from.fd : job_.to.fd;
    Watched<2> watched;
    watched.add(end, side == Side::source ? POLLIN : POLLOUT);
    if (side == Side::source && can_die()) watched.add(job_.to.fd, 0);
    switch (Waiter::wait(watched, job_.machine.stalls(), job_.limits)) {
      case Woke::ready: return watched.seen(end) != 0 ? job_.machine.on_ready(!completions) : look_at_sink();
      case Woke::retry: return job_.machine.on_ready(false);
      case Woke::timed_out: return job_.machine.stop(StopReason::timed_out, Cause(Errc::timed_out), side);
      case Woke::stopped: return job_.machine.stop(StopReason::stopped, Cause(Errc::stopped), Side::none);
      case Woke::failed: return job_.machine.fail(Cause(errno), Side::none);
    }
  }
  // Pages that were sent with MSG_ZEROCOPY are the caller's again when their completions are here.
  void wait_for_completions() noexcept {
    auto& sends = job_.tools.zerocopy_sends();
    bool learned = true;  // a wake-up without a completion: an error or a hang-up stands
    for (sends.reap(); sends.outstanding() > 0; sends.reap()) {
      const std::uint64_t before = sends.outstanding();
      Watched<1> watched;
      watched.add(job_.to.fd, 0);
      const Woke woke = Waiter::wait(watched, learned ? 0 : 1, job_.limits);
      if (woke == Woke::timed_out || woke == Woke::stopped || woke == Woke::failed || job_.machine.side() == Side::sink)
        return;
      sends.reap();
      if (woke == Woke::ready && !learned && sends.outstanding() == before) return;  // the socket is dead
      learned = woke != Woke::ready || sends.outstanding() < before;
    }
  }

  // --- stepping ---------------------------------------------------------------------------------------------------

  Step step_on(std::uint64_t most) noexcept {
    Machine& machine = job_.machine;
    if (!machine.is_done() && job_.limits.limited()) obey_limits();
    if (machine.is_waiting()) machine.on_ready(false);
    const std::uint64_t start = machine.delivered();
    Looks looks;
    for (;;) {
      const Action action = machine.next();
      if (action == Action::finish) return finish_step();
      const std::uint64_t moved = machine.delivered() - start;
      if (moved >= most) return Step::progressed;
      if (action != Action::wait) {
        hop(action, std::min(job_.pace.most(), most - moved));
      } else if (!can_go_on(looks)) {
        return Step::blocked;
      }
    }
  }
  // Between two steps a pipe and a buffer are held only for what is in them: a thread's pool serves all who hold nothing.
  void put_back_empty() noexcept {
    if (job_.machine.buffered() + job_.machine.piped() == 0) job_.tools.store().recycle(0);
  }
  // How often one step has looked again.
  struct Looks {
    int at_ready = 0;
    bool at_error = false;
  };
  // An end blocked. Looked at once more, both of them: which one it is, whether it is ready after all (an edge that a poller
  // has had already will not come again), and whether time is up.
  bool can_go_on(Looks& looks) noexcept {
    Machine& machine = job_.machine;
    pollfd ends[2] = {{job_.from.fd, POLLIN, 0}, {job_.to.fd, POLLOUT, 0}};
    if (::poll(ends, 2, 0) < 0) return false;
    const bool source_ready = is_rewindable(job_.from.kind) || (ends[0].revents & ~POLLERR) != 0;
    const bool sink_ready = (ends[1].revents & ~POLLERR) != 0;
    // Without a byte in the source nothing moves, also into a sink that has room: AF_UNIX says so late, and the source's end
    // may be all that is still to come.
    if (machine.waiting_for() == Side::none) machine.wait_for(source_ready && !sink_ready ? Side::sink : Side::source);
    const bool at_source = machine.waiting_for() == Side::source;
    const bool errors = ((at_source ? ends[0] : ends[1]).revents & POLLERR) != 0;
    // Readiness that the strategy can't use makes the machine leave it, in this step: there will be no other edge.
    if ((at_source ? source_ready : sink_ready) && looks.at_ready++ < most_looks) return machine.on_ready(true), true;
    // The call that is tried again sees an error; one that it does not see is the caller's message.
    if (errors && !std::exchange(looks.at_error, true)) return machine.on_ready(false), true;
    if (at_source && can_die() && (ends[1].revents & (POLLERR | POLLHUP)) != 0) return look_at_sink(), true;
    if (job_.limits.stop_requested() || !is_time_up()) return false;
    machine.stop(StopReason::timed_out, Cause(Errc::timed_out), machine.waiting_for());
    tell_progress();
    return true;
  }
  static constexpr int most_looks = 80;  // more stalls than any strategy is given

  // The deadline, or the idle timeout.
  [[nodiscard]] bool is_time_up() const noexcept {
    const auto end = job_.limits.end();
    return end && Clock::now() >= *end;
  }
  Step finish_step() noexcept {
    if (job_.tools.outstanding_sends() > 0) job_.tools.zerocopy_sends().reap();
    const bool is_final = job_.machine.side() == Side::sink || job_.limits.stop_requested() || is_time_up();
    if (job_.tools.outstanding_sends() > 0 && !is_final) return Step::blocked;
    return Step::done;
  }

  Job& job_;
};

// Runs `job` to its end, and says what happened.
template <Kind From, Kind To>
[[gnu::always_inline]] inline TransferResult run_blocking(Job& job) noexcept {
  Driver<From, To> driver(job);
  driver.begin();
  driver.run();
  return Mover<From, To>(job).conclude();
}

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
