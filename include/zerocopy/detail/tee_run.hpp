// zerocopy/detail/tee_run.hpp: one source into several sinks: a job that fetches, and a job for each sink that delivers.
// What is fetched lies in a pipe of our own, or in a buffer where there are no pipes; each sink gets a duplicate of it, by
// tee(2) or by copying, as bytes in flight of its own job. Nothing is fetched before all living sinks are drained.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/driver.hpp>           // Driver
#include <zerocopy/detail/stranded_access.hpp>  // StrandedAccess
#include <zerocopy/sigpipe_guard.hpp>           // SigpipeGuard
#include <zerocopy/tee.hpp>                     // Tee, TeeResult

#include <algorithm>  // std::min
#include <array>      // the sinks
#include <cstring>    // std::memcpy
#include <optional>   // jobs

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// What was fetched, and what it takes to give it to each sink.
template <std::size_t N>
class Duplicates {
 public:
  // One pipe for what is fetched and one for each sink, all of one size, so that tee(2) never falls short; else a buffer.
  // False without memory for that.
  bool prepare(bool may_splice) noexcept {
    has_pipes_ = may_splice && take_pipes();
    return has_pipes_ || take_buffer();
  }
  ~Duplicates() {
    if (buffer_) Pool::give_back(std::move(buffer_));
    if (fetched_) Pool::give_back(std::move(fetched_));
    for (OwnPipe& pipe : sinks_)
      if (pipe) Pool::give_back(std::move(pipe));
  }

  [[nodiscard]] bool has_pipes() const noexcept { return has_pipes_; }
  [[nodiscard]] std::uint64_t capacity() const noexcept {
    return has_pipes_ ? std::min<std::uint64_t>(fetched_.capacity, buffer_size) : buffer_size;
  }
  // Where the next bytes are fetched to.
  [[nodiscard]] Cursor target() const noexcept {
    if (has_pipes_) return {.fd = fetched_.write_end.get(), .kind = Kind::pipe};
    return {.kind = Kind::memory, .left = buffer_size, .data = buffer_.get()};
  }

  // `n` bytes in the pipe, for a sink that has none in flight. False where tee(2) does not do it: nothing is lost.
  bool give(InFlight& store, std::size_t sink, std::uint64_t n) noexcept {
    if (!store.pipe) store.pipe = std::move(sinks_[sink]);
    if (sys::tee(fetched_.read_end.get(), store.pipe.write_end.get(), n) == static_cast<sys::Count>(n)) return true;
    store.pipe = OwnPipe{};
    return false;
  }
  // The last sink takes the original; into its empty pipe will be fetched next. Its write end is returned.
  int give_original(InFlight& store, std::size_t sink) noexcept {
    if (!store.pipe) store.pipe = std::move(sinks_[sink]);
    std::swap(store.pipe, fetched_);
    return fetched_.write_end.get();
  }
  // The same from `data` in the buffer. 0, or a negated errno.
  static sys::Count copy(InFlight& store, const std::byte* data, std::uint64_t n) noexcept {
    if (const sys::Count error = store.need_buffer(); error < 0) return error;
    std::memcpy(store.buffer.get(), data, n);
    store.put_into_buffer(n);
    return 0;
  }
  // From now on by copying; the `n` bytes in the pipe come into the buffer. Null where that fails.
  const std::byte* give_pipes_up(std::uint64_t n) noexcept {
    OwnPipe full = std::move(fetched_);
    has_pipes_ = false;
    if (!take_buffer()) return nullptr;
    return sys::read(full.read_end.get(), buffer_.get(), n) == static_cast<sys::Count>(n) ? buffer_.get() : nullptr;
  }

 private:
  bool take_buffer() noexcept {
    buffer_ = Pool::take_buffer();
    return buffer_ != nullptr;
  }
  bool take_pipes() noexcept {
    if (Pool::take(fetched_) < 0) return false;
    std::size_t size = fetched_.capacity;
    for (OwnPipe& pipe : sinks_) {
      if (Pool::take(pipe) < 0) return false;
      size = std::min(size, pipe.capacity);
    }
    for (OwnPipe& pipe : sinks_)
      if (!shrink(pipe, size)) return false;
    return shrink(fetched_, size);
  }
  static bool shrink(OwnPipe& pipe, std::size_t size) noexcept {
    if (pipe.capacity == size) return true;
    const int now = ::fcntl(pipe.write_end.get(), F_SETPIPE_SZ, static_cast<int>(size));
    if (now >= 0) pipe.capacity = static_cast<std::size_t>(now);
    return pipe.capacity == size;
  }

  OwnPipe fetched_;
  std::array<OwnPipe, N> sinks_;  // until the sinks' jobs have them
  Buffer buffer_;
  bool has_pipes_ = false;
};

template <Kind From, class... Ends>
class TeeRun {
  static constexpr std::size_t N = sizeof...(Ends);

 public:
  TeeRun(const Cursor& from, const Tee<Ends...>& tee, const Options& options) noexcept
      : options_(options), limits_(options), from_(from), asked_(options.length), left_(options.length) {
    // The limits and the progress are those of the whole: the jobs inside are stepped.
    fetching_.strategy = options.strategy;
    fetching_.allow = options.allow;
    fetching_.aliasing = options.aliasing;
    fetching_.chunk_size = delivering_.chunk_size = options.chunk_size;
    delivering_.more = options.more;
    looking_.length = options.length;
    each_sink([&](auto index, auto& sink) noexcept { sink.cursor = std::get<index>(tee.sinks()).cursor; });
  }
  TeeRun(const TeeRun&) = delete;
  TeeRun& operator=(const TeeRun&) = delete;

  TeeResult<N> run() noexcept {
    const SigpipeGuard guard;
    each_sink([&](auto index, auto& sink) noexcept { begin(index, sink); });
    if (is_going_ && !duplicates_.prepare(may_splice())) fail(Cause(ENOMEM), Side::none);
    if (options_.on_progress) meter_.begin(left_ == to_end ? std::nullopt : std::optional(left_));
    if (left_ > 0) obey_limits();
    while (is_going_) advance();
    return conclude();
  }

 private:
  template <Kind To>
  struct Sink {
    Cursor cursor;
    std::optional<Job> job;
    bool is_alive = true;
    bool is_waited_for = false;

    [[nodiscard]] Driver<Kind::in_flight, To> driver() noexcept { return Driver<Kind::in_flight, To>(*job); }
    [[nodiscard]] std::uint64_t in_flight() const noexcept { return job->machine.buffered() + job->machine.piped(); }
    [[nodiscard]] std::uint64_t delivered() const noexcept { return job ? job->machine.delivered() : 0; }
  };
  template <class Use>
  void each_sink(Use use) noexcept {
    [&]<std::size_t... I>(std::index_sequence<I...>) noexcept {
      (use(std::integral_constant<std::size_t, I>(), std::get<I>(sinks_)), ...);
    }(std::make_index_sequence<N>());
  }

  // --- before the first byte --------------------------------------------------------------------------------------

  template <Kind To>
  void begin(std::size_t index, Sink<To>& sink) noexcept {
    if (!is_going_) return;
    // As if it were the only sink, whatever the strategy.
    Job both(
        looking_, [&] { return from_; }, [&] { return sink.cursor; });
    Planner<From, To>(both).make();
    if (!both.machine.is_done() && both.to.kind == Kind::messages)
      both.machine.fail(Cause(Errc::strategy_unavailable), Side::sink);
    if (both.machine.is_done()) return refuse(index, both.machine);
    from_.id = both.from.id;
    sink.job.emplace(
        delivering_, [&] { return both.to; }, [&] { return both.to; });
    sink.job->from = {.kind = Kind::in_flight};
    sink.job->stepped = true;
    sink.driver().begin();
    bound(index, both.machine.setup);
  }
  // The sink that takes least bounds all, and a source that is a sink too ends where it ends now.
  void bound(std::size_t index, const Machine::Setup& setup) noexcept {
    asked_ = setup.asked;
    if (setup.limit >= left_) return;
    left_ = setup.limit;
    at_limit_ = setup.at_limit;
    bound_by_ = index;
  }
  // Copying was asked for.
  [[nodiscard]] bool may_splice() const noexcept {
    if (options_.strategy) return *options_.strategy != Strategy::read_write;
    return options_.allow.contains(Strategy::splice) || !options_.allow.contains(Strategy::read_write);
  }
  void refuse(std::size_t index, const Machine& machine) noexcept {
    if (machine.side() == Side::sink) failed_ = index;
    fail(machine.cause(), machine.side());
  }

  // --- the loop ---------------------------------------------------------------------------------------------------

  void advance() noexcept {
    Watched<N + 1> watched;
    const std::uint64_t before = moved_;
    each_sink([&](auto index, auto& sink) noexcept { deliver(index, sink, watched); });
    const bool drained = watched.used == 0;
    if (is_going_ && drained) fetch(watched);
    if (moved_ != before) {
      limits_.progressed();
      woken_in_vain_ = 0;
      if (options_.on_progress) meter_.tell(options_.on_progress, delivered(), false);
      obey_limits();
    }
    if (is_going_ && watched.used > 0) wait(watched, drained);
  }
  template <Kind To>
  void deliver(std::size_t index, Sink<To>& sink, Watched<N + 1>& watched) noexcept {
    sink.is_waited_for = false;
    if (!is_going_ || !sink.is_alive || sink.in_flight() == 0) return;
    const std::uint64_t before = sink.delivered();
    std::uint64_t all = to_end;
    const Step step = sink.driver().step(all);
    moved_ += sink.delivered() - before;
    sink.is_waited_for = step == Step::blocked;
    if (sink.is_waited_for) watched.add(sink.driver().watch().fd, sink.driver().watch().events);
    if (sink.job->machine.cause()) lose(index, sink);
  }
  template <Kind To>
  void lose(std::size_t index, Sink<To>& sink) noexcept {
    sink.is_alive = false;
    if (!failed_) {
      failed_ = index;
      sink_cause_ = sink.job->machine.cause();
    }
    if (options_.dead_sink == DeadSink::stop || living() == 0) is_going_ = false;
  }
  [[nodiscard]] std::size_t living() noexcept {
    std::size_t count = 0;
    each_sink([&](auto, auto& sink) noexcept { count += sink.is_alive ? 1U : 0U; });
    return count;
  }
  // What every living sink has, or every sink if all are dead.
  [[nodiscard]] std::uint64_t delivered() noexcept {
    const bool all_dead = living() == 0;
    std::uint64_t least = to_end;
    each_sink([&](auto, auto& sink) noexcept {
      if (sink.is_alive || all_dead) least = std::min(least, sink.delivered());
    });
    return least;
  }

  void fetch(Watched<N + 1>& watched) noexcept {
    if (source_ended_) return void(is_going_ = false);
    if (!fetch_) open_fetch();
    const Step step = into_pipe_ ? fetch_by<Kind::pipe>(watched) : fetch_by<Kind::memory>(watched);
    if (const std::uint64_t n = fetch_->machine.delivered() - given_; n > 0) distribute(n);
    if (step == Step::done || into_pipe_ != duplicates_.has_pipes()) close_fetch();
  }
  void open_fetch() noexcept {
    into_pipe_ = duplicates_.has_pipes();
    fetching_.length = into_pipe_ ? left_ : std::min<std::uint64_t>(left_, buffer_size);
    fetch_.emplace(
        fetching_, [&] { return from_; }, [&] { return duplicates_.target(); });
    fetch_->stepped = true;
    given_ = 0;
    into_pipe_ ? Driver<From, Kind::pipe>(*fetch_).begin() : Driver<From, Kind::memory>(*fetch_).begin();
  }
  template <Kind To>
  Step fetch_by(Watched<N + 1>& watched) noexcept {
    Driver<From, To> driver(*fetch_);
    std::uint64_t room = duplicates_.capacity();
    const Step step = driver.step(room);
    const bool has_bytes = fetch_->machine.delivered() > given_;
    if (step == Step::blocked && !has_bytes) watched.add(driver.watch().fd, driver.watch().events);
    return step;
  }
  // All living sinks get the same `n` bytes.
  void distribute(std::uint64_t n) noexcept {
    const std::byte* data = into_pipe_ ? nullptr : fetch_->to.data - n;
    std::size_t to_come = living();
    if (fetch_->machine.mover() == Strategy::vmsplice) shares_memory_ = true;
    each_sink([&](auto index, auto& sink) noexcept {
      if (!is_going_ || !sink.is_alive) return;
      InFlight& store = sink.job->tools.store();
      const bool is_last = --to_come == 0;
      sink.job->limits.progressed();
      if (data == nullptr && is_last) {
        fetch_->to.fd = duplicates_.give_original(store, index);
        return sink.job->machine.resume(0, n);
      }
      if (data == nullptr && duplicates_.give(store, index, n)) return sink.job->machine.resume(0, n);
      if (data == nullptr) data = duplicates_.give_pipes_up(n);
      const sys::Count error = data == nullptr ? -ENOMEM : Duplicates<N>::copy(store, data, n);
      if (error < 0) return fail(Cause(static_cast<int>(-error)), Side::none);
      sink.job->machine.resume(n, 0);
    });
    given_ += n;
    moved_ += n;
    if (left_ != to_end) left_ -= n;
  }
  void close_fetch() noexcept {
    const bool is_whole = into_pipe_ && into_pipe_ == duplicates_.has_pipes();
    TransferResult part =
        into_pipe_ ? Mover<From, Kind::pipe>(*fetch_).conclude() : Mover<From, Kind::memory>(*fetch_).conclude();
    const bool was_done = fetch_->machine.is_done();
    from_ = fetch_->from;
    if (From == Kind::range && from_.left != to_end) from_.left -= part.consumed;
    fetch_.reset();
    result_.consumed += part.consumed;
    result_.calls += part.calls;
    if (part.strategy) result_.strategy = part.strategy;
    result_.trail.append(part.trail);
    result_.stranded = std::move(part.stranded);
    result_.source_in_use = result_.source_in_use || part.source_in_use;
    if (!was_done) return;
    const bool at_end = part.reason != StopReason::complete;  // or an error
    source_ended_ = at_end || is_whole || left_ == 0;
    if (!source_ended_) return;
    result_.reason = part.reason;
    if (!at_end && at_limit_ == Machine::AtLimit::source_ends) result_.reason = StopReason::end_of_source;
    if (result_.reason == StopReason::end_of_source && asked_ == to_end) result_.reason = StopReason::complete;
    result_.error = part.error;
    result_.side = part.side;
  }

  // --- waiting ----------------------------------------------------------------------------------------------------

  void wait(Watched<N + 1>& watched, bool at_source) noexcept {
    if (at_source) each_sink([&](auto, auto& sink) noexcept { watch_for_death(sink, watched); });
    switch (Waiter::wait(watched, woken_in_vain_, limits_)) {
      case Woke::ready:
        ++woken_in_vain_;
        if (at_source) each_sink([&](auto index, auto& sink) noexcept { look_for_death(index, sink, watched); });
        return;
      case Woke::retry: return;
      case Woke::timed_out: return stop(StopReason::timed_out, Errc::timed_out);
      case Woke::stopped: return stop(StopReason::stopped, Errc::stopped);
      case Woke::failed: return fail(Cause(errno), Side::none);
    }
  }
  template <Kind To>
  static void watch_for_death(Sink<To>& sink, Watched<N + 1>& watched) noexcept {
    if (sink.is_alive && sink.driver().can_die()) watched.add(sink.job->to.fd, 0);
  }
  template <Kind To>
  void look_for_death(std::size_t index, Sink<To>& sink, const Watched<N + 1>& watched) noexcept {
    if (!sink.is_alive || !sink.driver().can_die() || watched.seen(sink.job->to.fd) == 0) return;
    sink.job->machine.resume(0, 0);  // it is done with what it was given, and must be able to fail
    sink.driver().look_at_sink();
    if (sink.job->machine.cause()) lose(index, sink);
  }
  void obey_limits() noexcept {
    if (limits_.stop_requested()) return stop(StopReason::stopped, Errc::stopped);
    if (limits_.limited() && limits_.deadline_passed()) stop(StopReason::timed_out, Errc::timed_out);
  }
  // The first sink that was waited for is named.
  void stop(StopReason reason, Errc error) noexcept {
    is_going_ = false;
    stopped_ = true;
    result_.reason = reason;
    result_.error = make_error_code(error);
    std::optional<std::size_t> waited_for;
    each_sink([&](auto index, auto& sink) noexcept {
      if (!waited_for && sink.is_alive && sink.is_waited_for) waited_for = index;
    });
    if (!waited_for) return;
    failed_ = waited_for;
    if (reason == StopReason::timed_out) result_.side = Side::sink;
  }
  void fail(Cause cause, Side side) noexcept {
    is_going_ = false;
    stopped_ = true;
    result_.reason = StopReason::failed;
    result_.error = cause.code();
    result_.side = side;
  }

  // --- the end ----------------------------------------------------------------------------------------------------

  TeeResult<N> conclude() noexcept {
    if (fetch_) close_fetch();
    result_.delivered = delivered();
    if (options_.on_progress) meter_.tell(options_.on_progress, result_.delivered, true);
    each_sink([&](auto index, auto& sink) noexcept {
      if (sink.job) result_.sinks[index] = conclude(sink);
    });
    if (!result_.error && sink_cause_) blame_sink(sink_cause_);
    if (!result_.error && at_limit_ == Machine::AtLimit::sink_full && left_ == 0) {
      failed_ = bound_by_;
      blame_sink(Cause(Errc::sink_full));
    }
    result_.failed_sink = failed_;
    return std::move(result_);
  }
  void blame_sink(Cause cause) noexcept {
    result_.error = cause.code();
    result_.side = Side::sink;
    result_.reason = result_.error == Errc::sink_closed ? StopReason::sink_closed : StopReason::failed;
  }
  template <Kind To>
  SinkResult conclude(Sink<To>& sink) noexcept {
    if (shares_memory_ && still_reads(sink)) result_.source_in_use = true;
    const TransferResult part = Mover<Kind::in_flight, To>(*sink.job).conclude();
    SinkResult result{part.delivered, part.reason, part.error, {}};
    Stranded rest;
    StrandedAccess::take_back(rest, *sink.job);
    // What stopped the whole stopped a sink that still had bytes to come.
    if (!result.error && (!rest.empty() || !source_ended_) && stopped_) {
      result.reason = result_.reason;
      result.error = result_.error;
    }
    // Another sink's failure did: this one has none.
    const bool cut_short = sink_cause_ && options_.dead_sink == DeadSink::stop;
    if (!result.error && cut_short && (!rest.empty() || !source_ended_)) result.reason = StopReason::stopped;
    result_.calls += part.calls;
    if (!rest.empty()) result.stranded = std::move(rest);
    return result;
  }

  // Whether a sink's reader may yet be given pages of the caller's memory.
  template <Kind To>
  static bool still_reads(const Sink<To>& sink) noexcept {
    if (sink.in_flight() > 0) return true;
    const Cursor& to = sink.job->to;
    if (is_file(to.kind) || is_memory(to.kind)) return false;
    int queued = 0;
    return to.kind != Kind::pipe || ::ioctl(to.fd, FIONREAD, &queued) != 0 || queued > 0;
  }

  const Options& options_;
  Limits limits_;
  Options looking_;
  Options fetching_;
  Options delivering_;
  Cursor from_;
  std::uint64_t asked_;  // by the length, or by a source range
  std::uint64_t left_;   // to fetch
  Machine::AtLimit at_limit_ = Machine::AtLimit::complete;
  std::tuple<Sink<Ends::kind>...> sinks_;
  Duplicates<N> duplicates_;
  std::optional<Job> fetch_;
  bool into_pipe_ = false;   // where the fetch job writes to
  std::uint64_t given_ = 0;  // of what the fetch job has delivered
  std::uint64_t moved_ = 0;  // by any job
  Meter meter_;
  TeeResult<N> result_;
  std::optional<std::size_t> failed_;    // the first sink that failed
  std::optional<std::size_t> bound_by_;  // the sink that bounds the length
  Cause sink_cause_{};
  bool is_going_ = true;
  bool stopped_ = false;  // the whole, not a sink
  bool shares_memory_ = false;
  bool source_ended_ = false;
  int woken_in_vain_ = 0;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
