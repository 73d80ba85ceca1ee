// zerocopy/stepping.hpp: a transfer as an object that somebody else's event loop steps. It owns what is in flight and the
// counts; it borrows both descriptors, waits for nothing, and leaves their flags alone.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/transfer.hpp>  // sources, sinks, Sequence

#include <algorithm>  // std::max
#include <chrono>     // wake_at
#include <memory>     // the state
#include <optional>   // wake_at

namespace zerocopy::inline ZEROCOPY_ABI {

namespace detail {

// One step's share of bytes, which the parts of a gather have in common.
struct OneStep {
  static constexpr bool steps = true;
  std::uint64_t left;
  explicit OneStep(const Options& options) noexcept : left(std::max<std::uint64_t>(options.step_size, 1)) {}
  template <Kind From, Kind To>
  Step operator()(Driver<From, To> driver) noexcept {
    return driver.step(left);
  }
};

// What a Transfer owns, whatever its ends are.
class Course {
 public:
  explicit Course(Options wanted) noexcept : options(std::move(wanted)) {}
  Course(const Course&) = delete;
  Course& operator=(const Course&) = delete;
  virtual ~Course() = default;

  virtual Step step() noexcept = 0;
  [[nodiscard]] virtual Watch watch() noexcept = 0;
  [[nodiscard]] virtual const Limits* limits() const noexcept = 0;
  [[nodiscard]] virtual TransferResult so_far() noexcept = 0;
  virtual TransferResult conclude() noexcept = 0;

  const Options options;
};

template <Kind From, Kind To>
class JobCourse final : public Course {
 public:
  JobCourse(const Cursor& from, const Cursor& to, Options wanted) noexcept
      : Course(std::move(wanted)),
        job_(
            options, [&] { return from; }, [&] { return to; }) {
    job_.stepped = true;
    if constexpr (From != Kind::in_flight) Driver<From, To>(job_).begin();
  }
  JobCourse(Stranded&& bytes, const Cursor& to, Options wanted) noexcept
      : JobCourse(Cursor{.kind = Kind::in_flight}, to, std::move(wanted)) {
    Stranded taken = std::move(bytes);  // which leaves none in `bytes`, lending would leave its count
    StrandedAccess::lend(taken, job_);
    Driver<From, To>(job_).begin();
  }

  Step step() noexcept override { return OneStep(options)(Driver<From, To>(job_)); }
  Watch watch() noexcept override { return Driver<From, To>(job_).watch(); }
  const Limits* limits() const noexcept override { return &job_.limits; }
  TransferResult so_far() noexcept override { return Mover<From, To>(job_).report(); }
  TransferResult conclude() noexcept override {
    TransferResult result = Mover<From, To>(job_).conclude();
    if constexpr (From == Kind::in_flight) {
      Stranded rest;
      StrandedAccess::take_back(rest, job_);
      result.consumed += rest.size();
      if (!rest.empty()) result.stranded = std::move(rest);
    }
    return result;
  }

 private:
  Job job_;
};

template <Kind To, class... Ends>
class SequenceCourse final : public Course {
 public:
  SequenceCourse(const Gather<Ends...>& from, const Cursor& to, Options wanted) noexcept
      : Course(std::move(wanted)), limits_(options), sequence_(from, to, options) {}

  Step step() noexcept override { return sequence_.go(OneStep(options)); }
  Watch watch() noexcept override { return sequence_.watch(); }
  const Limits* limits() const noexcept override {
    const Limits* const of_part = sequence_.limits();
    return of_part != nullptr ? of_part : &limits_;
  }
  TransferResult so_far() noexcept override { return sequence_.so_far(); }
  TransferResult conclude() noexcept override { return sequence_.conclude(); }

 private:
  Limits limits_;  // until the first part has begun
  Sequence<To, Ends...> sequence_;
};

template <class Source, class Sink>
std::unique_ptr<Course> make_course(const Source& from, const Sink& to, Options&& options) {
  return std::make_unique<JobCourse<source_kind<Source>(), sink_kind<Sink>()>>(as_source(from), as_sink(to),
                                                                               std::move(options));
}
template <class Sink>
std::unique_ptr<Course> make_course(Stranded& from, const Sink& to, Options&& options) {
  return std::make_unique<JobCourse<Kind::in_flight, sink_kind<Sink>()>>(std::move(from), as_sink(to),
                                                                         std::move(options));
}
template <class... Ends, class Sink>
std::unique_ptr<Course> make_course(const Gather<Ends...>& from, const Sink& to, Options&& options) {
  return std::make_unique<SequenceCourse<sink_kind<Sink>(), Ends...>>(from, as_sink(to), std::move(options));
}

}  // namespace detail

/// The same move as `transfer`, taken in steps that never block, for epoll, Asio, libuv, Qt or any other loop:
///
///     Transfer t(file, socket);
///     while (t.step() != Step::done) wait_until_ready(t.fd(), t.events());   // or put them into the loop
///     use(t.result());
///
/// Level and edge triggered pollers both work: `blocked` is only said after the end was seen not to be ready. Destroying an
/// unfinished one gives what is in flight back to a source that can be rewound, and destroys it otherwise: `finish()` hands
/// it out. Both descriptors must stay open while it lives; their flags are neither used nor changed.
/// Options: `deadline`, `idle_timeout` and `stop` are looked at in `step()`: come back at `wake_at()`. `on_progress`'s
/// callable must live as long as the Transfer. `step_size` bounds one step.
/// Into a socket that blocks (O_NONBLOCK not set), sendfile and splice would block: there bytes are copied, and the trail
/// says `would_block_uncut`. A file that is not in the page cache blocks in the call that reads it. An AF_UNIX peer that shuts
/// its reading down while it has much to read does not wake a poller: an `idle_timeout` ends that too.
/// Memory: one allocation, under 2 KiB for one source and one sink, when it is made; a buffer or a pipe only while a
/// strategy needs it. Thread safety: distinct objects are independent. Linux 5.10.
class Transfer {
 public:
  /// Looks at both ends, moves nothing. What is wrong with them shows in the first step.
  /// A `Stranded` is moved from; handles are borrowed, so temporaries of them do not compile.
  /// Errors: std::bad_alloc. Blocking: no.
  template <class Source, class Sink>
    requires(!std::same_as<std::remove_cvref_t<Source>, Transfer>)
  Transfer(Source&& from, Sink&& to, Options options = {}) {
    using From = std::remove_cvref_t<Source>;
    using To = std::remove_cvref_t<Sink>;
    static_assert(detail::is_source<From>, "zerocopy: this type is not a source");
    static_assert(sink<To>, "zerocopy: this type is not a sink");
    static_assert(
        std::is_lvalue_reference_v<Source> || std::is_trivially_destructible_v<From> || std::same_as<From, Stranded>,
        "zerocopy: a Transfer borrows its source: give the handle a name first");
    static_assert(std::is_lvalue_reference_v<Sink> || std::is_trivially_destructible_v<To>,
                  "zerocopy: a Transfer borrows its sink: give the handle a name first");
    course_ = detail::make_course(from, to, std::move(options));
  }
  Transfer(Transfer&& other) noexcept = default;
  Transfer& operator=(Transfer&& other) noexcept {
    if (this != &other) {
      (void)finish();
      course_ = std::move(other.course_);
      result_ = std::move(other.result_);
    }
    return *this;
  }
  ~Transfer() { (void)finish(); }

  /// Moves bytes until an end is not ready, `step_size` bytes have gone, or nothing is left to do. Once it has said `done`
  /// it says so again. Errors: none; see `result()`. Blocking: never on a descriptor.
  Step step() noexcept {
    if (!course_) return Step::done;
    const Step step = course_->step();
    if (step == Step::done) end();
    return step;
  }

  /// After `blocked`: the descriptor to poll, either end; -1 otherwise.
  [[nodiscard]] int fd() const noexcept { return watch().fd; }
  /// After `blocked`: POLLIN or POLLOUT; 0 where only errors are waited for (completions of MSG_ZEROCOPY).
  [[nodiscard]] short events() const noexcept { return watch().events; }
  /// While the source is waited for: the sink, to be polled for its death (events 0) by those who want to know of it before
  /// the source speaks again; else -1.
  [[nodiscard]] int sink_fd() const noexcept { return watch().other; }
  /// The moment at which a time limit ends, if there is one: step again then at the latest.
  [[nodiscard]] std::optional<std::chrono::steady_clock::time_point> wake_at() const noexcept {
    const detail::Limits* const limits = course_ ? course_->limits() : nullptr;
    return limits != nullptr ? limits->end() : std::nullopt;
  }

  [[nodiscard]] bool is_done() const noexcept { return course_ == nullptr; }

  /// What has happened so far; `would_block` is the reason until it is done. What is in flight is in `stranded` only when
  /// it is done. Valid until the next call.
  [[nodiscard]] TransferResult& result() noexcept {
    if (course_) {
      result_ = course_->so_far();
      result_.reason = StopReason::would_block;
    }
    return result_;
  }

  /// Ends it, finished or not, and hands the result out: `consumed - delivered` bytes are in `stranded`, from where
  /// `transfer(*result.stranded, other_sink)` delivers them; then the source's next byte follows. Blocking: no.
  TransferResult finish() noexcept {
    if (course_) {
      end();
      result_.reason = StopReason::would_block;
    }
    return std::exchange(result_, TransferResult());
  }

 private:
  void end() noexcept {
    result_ = course_->conclude();
    course_.reset();
  }
  [[nodiscard]] detail::Watch watch() const noexcept { return course_ ? course_->watch() : detail::Watch(); }

  std::unique_ptr<detail::Course> course_;  // none: done
  TransferResult result_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI
