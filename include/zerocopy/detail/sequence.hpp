// zerocopy/detail/sequence.hpp: a gather as it is moved: one job a part, one result for all. It owns the current job and
// the sink's cursor, which goes from part to part.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/driver.hpp>  // Driver
#include <zerocopy/gather.hpp>         // Gather

#include <netinet/tcp.h>  // TCP_CORK

#include <optional>  // the current job

namespace zerocopy::inline ZEROCOPY_ABI::detail {

template <Kind To, class... Ends>
class Sequence {
 public:
  Sequence(const Gather<Ends...>& parts, const Cursor& to, const Options& options) noexcept
      : parts_(parts), to_(to), options_(options), rest_(options) {
    check();
    if constexpr (may_be_socket(To)) cork();
  }
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  // Goes on with the current part, and the ones after it. `drive` takes a Driver as far as it goes.
  template <class Drive>
  Step go(Drive drive) noexcept {
    while (!is_done_) {
      Step step = Step::done;
      parts_.visit(at_, [&]<Kind From>(const Endpoint<From>& part) noexcept { step = go_part(part, drive); });
      if (step != Step::done) return step;
    }
    return Step::done;
  }
  [[nodiscard]] Watch watch() noexcept {
    Watch watch;
    if (job_) at_part([&](auto driver, auto) noexcept { watch = driver.watch(); });
    return watch;
  }
  // What the parts before, and the current one so far, have moved.
  [[nodiscard]] TransferResult so_far() noexcept {
    TransferResult result;
    append(result, sum_);
    if (job_) at_part([&](auto, auto mover) noexcept { append(result, mover.report()); });
    return result;
  }
  [[nodiscard]] const Limits* limits() const noexcept { return job_ ? &job_->limits : nullptr; }
  // Wherever it is.
  TransferResult conclude() noexcept {
    if (job_) at_part([&](auto, auto mover) noexcept { finish_part(mover.conclude()); });
    if (corked_) (void)sys::set_option(to_.fd, IPPROTO_TCP, TCP_CORK, 0);
    if (promised_ && !options_.more && is_socket(to_.kind)) flush_promised(to_.fd);
    TransferResult result = std::move(sum_);
    result.stranded = std::move(stranded_);
    return result;
  }

 private:
  static constexpr std::size_t size = sizeof...(Ends);

  template <class Use>
  void at_part(Use use) noexcept {
    parts_.visit(
        at_, [&]<Kind From>(const Endpoint<From>&) noexcept { use(Driver<From, To>(*job_), Mover<From, To>(*job_)); });
  }

  // All parts are checked before the first byte; learns what the sink is.
  void check() noexcept {
    if (size == 0) return refuse(Errc::empty_gather, Side::source);
    parts_.each([&]<Kind From>(const Endpoint<From>& part) noexcept { return check_part(part); });
    if (!is_done_ && size > 1 && to_.kind == Kind::messages) refuse(Errc::strategy_unavailable, Side::sink);
    if (options_.on_progress) {
      if (!total_ && most() != to_end) total_ = most();
      told_.meter.begin(total_);
      rest_.on_progress = Progress(told_, {});
    }
  }
  // A promise of more holds a partial packet only until the next acknowledgement comes; a cork holds it until it is taken
  // off, and sendfile needs no help. Parts that can be silent get no cork: what they have said must go.
  void cork() noexcept {
    int corked = 0;
    if (is_done_ || size < 2 || options_.more || is_live_ || to_.kind != Kind::socket) return;
    if (sys::get_option(to_.fd, IPPROTO_TCP, TCP_CORK, corked) < 0) return;  // not TCP
    corked_ = corked == 0 && sys::set_option(to_.fd, IPPROTO_TCP, TCP_CORK, 1) == 0;
    needs_promise_ = corked == 0 && !corked_;
  }
  template <Kind From>
  bool check_part(const Endpoint<From>& part) noexcept {
    Job job(
        options_, [&] { return part.cursor; }, [&] { return to_; });
    const bool is_sound = Planner<From, To>(job).check();
    // A sink that is one of the sources would change the parts that come later.
    if (is_sound && job.from.id.is_same_inode(job.to.id)) job.machine.fail(Cause(Errc::same_file), Side::sink);
    to_ = job.to;
    is_live_ = is_live_ || !is_rewindable(job.from.kind);
    Mover<From, To> mover(job);
    if (options_.on_progress && is_sound) add(Diagnosis(job).total());
    if (job.machine.is_done()) sum_ = mover.report(), is_done_ = true;
    return !is_done_;
  }
  void add(std::optional<std::uint64_t> part) noexcept {
    if (!part) total_.reset();
    if (total_) total_ = *part < most() - *total_ ? *total_ + *part : most();  // the sum may not overflow
  }
  // What can be asked of all parts together.
  [[nodiscard]] std::uint64_t most() const noexcept { return std::min(options_.length, to_.left); }
  void refuse(Errc error, Side side) noexcept {
    sum_.reason = StopReason::failed;
    sum_.error = make_error_code(error);
    sum_.side = side;
    is_done_ = true;
  }

  template <Kind From, class Drive>
  Step go_part(const Endpoint<From>& part, Drive& drive) noexcept {
    if (!job_) {
      rest_.more = options_.more || (needs_promise_ && at_ + 1 < size);
      told_.before = sum_.delivered;
      job_.emplace(
          rest_, [&] { return part.cursor; }, [&] { return to_; });
      job_->stepped = Drive::steps;
      Driver<From, To>(*job_).begin();
    }
    const Step step = drive(Driver<From, To>(*job_));
    if (step != Step::done) return step;
    TransferResult result = Mover<From, To>(*job_).conclude();
    // A part's own end is not the end of the gather, unless it is a range that its file could not fill.
    const bool is_whole = From != Kind::range || part.cursor.left == to_end || result.delivered == part.cursor.left;
    const bool is_last = at_ + 1 == size;
    if (result.reason == StopReason::end_of_source && !is_last && is_whole) result.reason = StopReason::complete;
    finish_part(std::move(result));
    is_done_ = is_last || sum_.reason != StopReason::complete || rest_.length == 0 || stranded_;
    if (is_done_ && options_.on_progress) told_.meter.tell(options_.on_progress, sum_.delivered, true);
    ++at_;
    return Step::done;
  }
  void finish_part(TransferResult&& part) noexcept {
    if (part.delivered > 0) promised_ = rest_.more;
    if (rest_.length != to_end) rest_.length -= part.delivered;
    to_ = job_->to;
    if (to_.kind == Kind::range && to_.left != to_end) to_.left -= part.delivered;
    job_.reset();
    stranded_ = std::move(part.stranded);
    part.stranded.reset();
    append(sum_, part);
  }
  // The result of one more part.
  static void append(TransferResult& sum, const TransferResult& part) noexcept {
    sum.delivered += part.delivered;
    sum.consumed += part.consumed;
    sum.calls += part.calls;
    sum.reason = part.reason;
    sum.error = part.error;
    sum.side = part.side;
    if (part.strategy) sum.strategy = part.strategy;
    sum.trail.append(part.trail);
    sum.source_in_use = sum.source_in_use || part.source_in_use;
  }

  // Tells the caller of all parts as of one transfer.
  struct Told {
    const Progress& progress;
    Meter meter;
    std::uint64_t before = 0;
    void operator()(const ProgressReport& part) noexcept { meter.tell(progress, before + part.bytes, false); }
  };

  Gather<Ends...> parts_;
  Cursor to_;
  Options options_;
  Options rest_;
  std::optional<Job> job_;
  std::size_t at_ = 0;
  TransferResult sum_;
  std::optional<Stranded> stranded_;
  std::optional<std::uint64_t> total_ = 0;
  Told told_{options_.on_progress, {}};
  bool promised_ = false;
  bool needs_promise_ = true;
  bool is_live_ = false;
  bool corked_ = false;
  bool is_done_ = false;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
