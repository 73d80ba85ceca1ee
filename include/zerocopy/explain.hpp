// zerocopy/explain.hpp: what transfer() would do with two ends and some options, as data and as text. It runs the planner
// that a transfer runs and moves nothing; it owns nothing. What it says of copies is what the kernel does with the bytes
// on the sender's way, as Linux 5.10 to 6.18 do it.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/capabilities.hpp>       // Capabilities
#include <zerocopy/detail/call_count.hpp>  // CallModel
#include <zerocopy/detail/route.hpp>       // Route
#include <zerocopy/transfer.hpp>           // source, sink, the planner

#include <sys/statfs.h>  // fstatfs

#include <array>         // the entries
#include <cstddef>       // std::size_t
#include <cstdint>       // std::uint64_t
#include <optional>      // what may be absent
#include <string>        // text
#include <string_view>   // kinds
#include <system_error>  // std::error_code

namespace zerocopy::inline ZEROCOPY_ABI {

/// Why a strategy is not tried, where no Errc says it.
enum class Passed : int {
  only_when_forced = 1,  ///< it stands behind read_write, which serves everything: Options::strategy can force it
  another_forced,        ///< Options::strategy names another one
  not_worth_it,          ///< for so few bytes it costs more than copying
  cannot_promise_more,   ///< Options::more: it would end with a partial packet, and the source is short
  nothing_to_move,       ///< the length is 0, or the sink is full: no strategy runs
};

}  // namespace zerocopy::inline ZEROCOPY_ABI

template <>
struct std::is_error_code_enum<zerocopy::Passed> : std::true_type {};

namespace zerocopy::inline ZEROCOPY_ABI {

namespace detail {

class PassedCategory final : public std::error_category {
 public:
  const char* name() const noexcept override { return "zerocopy.passed"; }
  std::string message(int value) const override {
    switch (static_cast<Passed>(value)) {
      case Passed::only_when_forced: return "only when it is forced, or read_write is not allowed";
      case Passed::another_forced: return "another strategy is forced";
      case Passed::not_worth_it: return "does not pay for so few bytes";
      case Passed::cannot_promise_more: return "can't say that more follows";
      case Passed::nothing_to_move: return "there is nothing to move";
    }
    return "unknown reason " + std::to_string(value);
  }
};

}  // namespace detail

/// The category of `Passed`. Thread safety: any thread.
inline const std::error_category& passed_category() noexcept {
  static const detail::PassedCategory category;
  return category;
}
inline std::error_code make_error_code(Passed p) noexcept { return {static_cast<int>(p), passed_category()}; }

/// System calls of a transfer.
struct ExpectedCalls {
  std::uint64_t moving = 0;    ///< that move bytes: TransferResult::calls
  std::uint64_t ending = 0;    ///< that return 0, and so find or prove where the source ends
  std::uint64_t switches = 0;  ///< between user and kernel mode: two a call, none from memory to memory
};

/// One strategy in an Explanation.
struct ExplainedStrategy {
  Strategy strategy{};
  /// Its place in the order in which transfer tries them, from 0; none if it is passed over.
  std::optional<std::size_t> position;
  /// Why it is passed over: an Errc or a Passed, or the error that refuses the whole request. Empty for those in the order.
  std::error_code passed_over;
  /// In the order, but the kernel is known to refuse it here, with this errno: a transfer tries it and goes on to the next.
  std::error_code refused;
  /// It can serve this pair at all, if it is forced. Without this there are no costs.
  bool serves = false;
  /// How often the CPU copies each byte on the sender's way, in user and kernel mode. What the receiver copies is not here.
  /// copy_file_range: 1, or 0 where the file system shares extents. A device that is not known to gather counts as one
  /// that does not.
  unsigned cpu_copies = 0;
  /// How often devices move each byte: from the disk if it is not in the page cache, to the disk, to or from the network.
  unsigned dma_copies = 0;

  /// How many calls move `bytes` bytes, if the source has them and the sink has room whenever it is asked; a source that
  /// gives less and a sink that takes less make it more. fstat, fcntl, mmap and the two rt_sigprocmask are not counted.
  /// Errors: none; zeros where the strategy can't serve. Blocking: no, it is arithmetic. Thread safety: a value.
  [[nodiscard]] ExpectedCalls calls(std::uint64_t bytes) const noexcept {
    const detail::CallCount n = model.count(bytes);
    return {n.moving, n.ending, in_user_mode ? 0 : 2 * (n.moving + n.ending)};
  }

  detail::CallModel model;    // what `calls` counts by
  bool in_user_mode = false;  // from memory to memory
};

/// What a transfer would do: a range of ExplainedStrategy, all ten: first those in the order in which they are tried, then
/// those that are passed over. Thread safety: a value.
struct Explanation {
  /// One end of the transfer.
  struct End {
    std::string_view kind;  ///< "file", "file range", "pipe", "socket", "message socket", "device", "memory", ...
    int fd = -1;            ///< -1 for memory
    std::optional<std::uint64_t> offset;  ///< of a file range
  };

  End source;
  End sink;
  std::error_code error;   ///< what transfer would fail with before the first byte; empty if the request is sound
  Side side = Side::none;  ///< where `error` comes from
  std::uint64_t bytes =
      0;  ///< what `text()` counts calls for: all that would be moved, or 1 MiB where that can't be known
  std::optional<Route> route;  ///< of a connected TCP or UDP sink
  std::array<ExplainedStrategy, strategy_count> strategies;

  [[nodiscard]] auto begin() const noexcept { return strategies.begin(); }
  [[nodiscard]] auto end() const noexcept { return strategies.end(); }

  /// The entry of one strategy.
  [[nodiscard]] const ExplainedStrategy& operator[](Strategy wanted) const noexcept {
    std::size_t i = 0;
    while (i + 1 < strategies.size() && strategies[i].strategy != wanted) ++i;
    return strategies[i];
  }
  /// The one that would move the bytes: the first in the order that is not known to be refused. None if nothing would run.
  /// With Options::more the next in the order moves the last 64 KiB after sendfile, which can't promise that more follows.
  [[nodiscard]] std::optional<Strategy> chosen() const noexcept {
    if (error) return std::nullopt;
    for (const ExplainedStrategy& entry : strategies)
      if (entry.position && !entry.refused) return entry.strategy;
    return std::nullopt;
  }
  /// The calls of the chosen strategy that move `bytes` bytes: what TransferResult::calls will be. See
  /// ExplainedStrategy::calls. 0 if nothing would run.
  [[nodiscard]] std::uint64_t expected_calls(std::uint64_t for_bytes) const noexcept {
    const auto first = chosen();
    return first ? (*this)[*first].calls(for_bytes).moving : 0;
  }
  /// All of the above as an aligned table of a few lines; ends with a newline.
  /// Errors: std::bad_alloc. Blocking: no.
  [[nodiscard]] std::string text() const;
};

/// `explanation.text()`.
[[nodiscard]] inline std::string to_string(const Explanation& explanation) { return explanation.text(); }

namespace detail {

// How often the CPU and the devices touch each byte.
class Copies {
 public:
  Copies(const Job& job, const std::optional<Route>& route) noexcept
      : from_(job.from), to_(job.to), buffered_(job.machine.buffered() > 0), route_(route ? &*route : nullptr) {}

  [[nodiscard]] unsigned by_cpu(Strategy strategy) const noexcept {
    switch (strategy) {
      case Strategy::reflink: return 0;
      case Strategy::copy_file_range:
      case Strategy::mmap_write: return 1;
      case Strategy::sendfile:
      case Strategy::splice:
      case Strategy::vmsplice: return (from_.kind == Kind::device ? 1U : 0U) + into_sink();
      case Strategy::send_zerocopy: return route_ != nullptr && route_->is_loopback() ? 1 : into_sink();
      default: return is_memory(from_.kind) || is_memory(to_.kind) || buffered_ ? 1 : 2;
    }
  }
  [[nodiscard]] unsigned by_devices(Strategy strategy) const noexcept {
    if (strategy == Strategy::reflink) return 0;
    return by_device(from_) +
           (to_.kind == Kind::socket || to_.kind == Kind::messages ? over_wire(route_) : by_device(to_));
  }

 private:
  // Pages that are handed on: whether the sink takes them as they are.
  [[nodiscard]] unsigned into_sink() const noexcept {
    if (to_.kind == Kind::pipe) return 0;
    if (to_.kind != Kind::socket) return 1;  // a file copies into its own pages
    if (route_ != nullptr) return route_->scatter_gather.value_or(false) ? 0 : 1;
    int domain = 0;
    return sys::get_option(to_.fd, SOL_SOCKET, SO_DOMAIN, domain) == 0 && domain == AF_UNIX ? 0 : 1;
  }
  static unsigned by_device(const Cursor& end) noexcept {
    if (is_socket(end.kind)) {
      const std::optional<Route> route = find_route(end.fd);
      return over_wire(route ? &*route : nullptr);
    }
    return (is_file(end.kind) || end.kind == Kind::mapping) && is_on_disk(end.fd) ? 1 : 0;
  }
  static unsigned over_wire(const Route* route) noexcept { return route != nullptr && !route->is_loopback() ? 1 : 0; }
  static bool is_on_disk(int fd) noexcept {
    constexpr unsigned long in_memory[] = {0x01021994 /* tmpfs, memfd */, 0x858458f6 /* ramfs */,
                                           0x958458f6 /* hugetlbfs */, 0x9fa0 /* proc */, 0x62656572 /* sysfs */};
    struct statfs where;
    if (fd < 0 || ::fstatfs(fd, &where) != 0) return false;
    for (const unsigned long type : in_memory)
      if (static_cast<unsigned long>(where.f_type) == type) return false;
    return true;
  }

  const Cursor& from_;
  const Cursor& to_;
  bool buffered_;
  const Route* route_;
};

// The numbers that strategies cut a transfer by, asked of both ends.
class CallModeler {
 public:
  explicit CallModeler(Job& job) noexcept : job_(job) {
    from_capacity_ = capacity_of(job.from);
    to_capacity_ = capacity_of(job.to);
    write_most_ = most_per_write();
  }

  [[nodiscard]] CallModel model(Strategy strategy) const noexcept {
    const Machine::Setup& setup = job_.machine.setup;
    CallModel model;
    model.strategy = strategy;
    model.limit = setup.limit;
    model.pace = job_.pace;
    model.learns = job_.limits.paced();
    model.stream_source = job_.from.kind == Kind::pipe || job_.from.kind == Kind::device;
    model.ends_by_itself = is_memory(job_.from.kind) || job_.from.kind == Kind::in_flight;
    model.one_message = job_.to.kind == Kind::messages;
    set_sizes(model);
    if (job_.tools.cut_sends) cut(model);
    if (setup.at_limit == Machine::AtLimit::hand_over) {
      model.limit = setup.then_limit;
      if (strategy == Strategy::sendfile) hand_over(model);
    }
    return model;
  }
  // Of a file source: where its next byte is, and how many there are.
  [[nodiscard]] std::uint64_t source_offset() const noexcept {
    if (job_.from.positioned) return job_.from.offset;
    const sys::Count at = sys::seek(job_.from.fd, 0, SEEK_CUR);
    return at < 0 ? 0 : static_cast<std::uint64_t>(at);
  }
  // How many bytes there are to be moved. Where that can't be known: 1 MiB.
  [[nodiscard]] std::uint64_t bytes() const noexcept {
    constexpr std::uint64_t unknown = 1024 * 1024;
    const Cursor& from = job_.from;
    const Machine::Setup& setup = job_.machine.setup;
    const std::uint64_t limit = setup.at_limit == Machine::AtLimit::hand_over ? setup.then_limit : setup.limit;
    std::uint64_t there = unknown;
    struct stat file;
    if (from.kind == Kind::in_flight) {
      there = job_.machine.consumed();
    } else if (is_memory(from.kind)) {
      there = from.left;
    } else if (is_file(from.kind) && sys::stat(from.fd, file) == 0 && S_ISREG(file.st_mode)) {
      const std::uint64_t size = reach(file);
      there = size - std::min(size, source_offset());
    } else if (limit != to_end) {
      there = limit;
    }
    return std::min(there, limit);
  }

 private:
  static constexpr std::uint64_t most = sys::most_per_call;

  void set_sizes(CallModel& model) const noexcept {
    const Kind from = job_.from.kind;
    const Kind to = job_.to.kind;
    switch (model.strategy) {
      case Strategy::reflink: model.hop = 64 * 1024 * 1024; return;  // Reflink::piece
      case Strategy::copy_file_range:
      case Strategy::sendfile: model.hop = most; return;
      case Strategy::splice:
        if (from == Kind::pipe || to == Kind::pipe) {
          model.hop = std::min(from_capacity_, to_capacity_);
        } else {
          model.hop = from == Kind::in_flight ? most : pooled();
          model.drain = from == Kind::in_flight ? 0 : most;
        }
        if (is_file(from)) model.first_less = source_offset() % page();
        return;
      case Strategy::vmsplice:
        model.hop = to == Kind::pipe ? to_capacity_ : pooled();
        model.drain = to == Kind::pipe ? 0 : most;
        model.first_less = reinterpret_cast<std::uintptr_t>(job_.from.data) % page();
        return;
      case Strategy::mmap_write: model.hop = std::min(write_most_, is_file(from) ? Window::span : most); return;
      case Strategy::send_zerocopy: model.hop = is_file(from) ? Window::span : most; return;
      case Strategy::read_write: return set_copying_sizes(model);
      default: return;
    }
  }
  // Calls into a blocking socket that only a small size and SO_SNDTIMEO keep short (Mover::move_cut).
  void cut(CallModel& model) const noexcept {
    int queue = 0;
    (void)sys::get_option(job_.to.fd, SOL_SOCKET, SO_SNDBUF, queue);
    const std::uint64_t room =
        std::clamp<std::uint64_t>(static_cast<std::uint64_t>(queue) / 2, 4096, SendTimeout::largest_call);
    const bool through_own_pipe = model.drain != 0;
    if (model.strategy == Strategy::sendfile || (model.strategy == Strategy::splice && !through_own_pipe))
      model.hop = std::min(model.hop, room);
    if ((model.strategy == Strategy::splice || model.strategy == Strategy::vmsplice) && through_own_pipe)
      model.drain = room;
  }
  // sendfile can't say that more follows: the next strategy moves the last bytes.
  void hand_over(CallModel& model) const noexcept {
    model.own_limit = job_.machine.setup.limit;
    StrategyList next = job_.machine.setup.order;
    next.pop_front();
    const bool direct = !next.empty() && next.front() == Strategy::mmap_write;
    model.next_calls = direct ? 1 : 2;
  }
  void set_copying_sizes(CallModel& model) const noexcept {
    const Kind from = job_.from.kind;
    const bool in_buffer = from == Kind::in_flight && job_.machine.piped() == 0;
    if (is_memory(from) || in_buffer) {
      model.hop = write_most_;
    } else if (is_memory(job_.to.kind) && from != Kind::messages) {
      model.hop = std::min(from_capacity_, most);
    } else {
      model.hop = std::min<std::uint64_t>(from_capacity_, buffer_size);
      model.drain = write_most_;
    }
  }
  // What one write into the sink takes when there is room.
  [[nodiscard]] std::uint64_t most_per_write() const noexcept {
    const Cursor& to = job_.to;
    if (to.kind == Kind::pipe) return obeys_nowait() ? to_capacity_ : std::min<std::uint64_t>(to_capacity_, PIPE_BUF);
    return most;
  }
  // A FIFO refuses RWF_NOWAIT.
  [[nodiscard]] bool obeys_nowait() const noexcept {
    constexpr unsigned long pipefs = 0x50495045;
    struct statfs where;
    return Capabilities::of_process().pipe_nowait && ::fstatfs(job_.to.fd, &where) == 0 &&
           static_cast<unsigned long>(where.f_type) == pipefs;
  }
  static std::uint64_t capacity_of(const Cursor& end) noexcept {
    if (end.kind != Kind::pipe) return to_end;
    const int size = ::fcntl(end.fd, F_GETPIPE_SZ);
    return size > 0 ? static_cast<std::uint64_t>(size) : 65536;
  }
  // What the pipe of this thread's pool holds that a transfer would use.
  static std::uint64_t pooled() noexcept {
    OwnPipe pipe;
    if (Pool::take(pipe) < 0) return 0;
    const std::uint64_t capacity = pipe.capacity;
    Pool::give_back(std::move(pipe));
    return capacity;
  }
  static std::uint64_t page() noexcept {
    static const auto size = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    return size;
  }

  Job& job_;
  std::uint64_t from_capacity_ = to_end;
  std::uint64_t to_capacity_ = to_end;
  std::uint64_t write_most_ = most;
};

// Refusals that can be known without moving a byte: from the capabilities, the descriptors' flags, and a
// copy_file_range of length 0, for which the kernel checks the pair and returns before it does anything.
class Refusals {
 public:
  explicit Refusals(const Job& job) noexcept
      : from_(job.from), to_(job.to), drained_(job.from.kind == Kind::in_flight && job.machine.piped() == 0) {}

  [[nodiscard]] std::error_code of(Strategy strategy) const noexcept {
    const Capabilities& here = Capabilities::of_process();
    switch (strategy) {
      case Strategy::copy_file_range: return ask_copy_file_range();
      case Strategy::sendfile:
        return first(is_socket(to_.kind) ? here.sendfile_to_socket : here.sendfile_to_file, appends());
      case Strategy::splice:
        if (drained_) return Errc::not_for_this_pair;  // all that is in flight is in the buffer
        return first(here.splice, ask_pipe());
      case Strategy::vmsplice: return first(here.vmsplice, ask_pipe());
      case Strategy::send_zerocopy: return first(here.msg_zerocopy, ask_socket());
      default: return {};
    }
  }

 private:
  static std::error_code first(const Capability& capability, std::error_code otherwise) noexcept {
    return capability ? otherwise : capability.error;
  }
  [[nodiscard]] std::error_code ask_copy_file_range() const noexcept {
    off_t in;
    off_t out;
    const sys::Count n = sys::copy_file_range(from_.fd, from_.call_offset(in), to_.fd, to_.call_offset(out), 0);
    const int error = static_cast<int>(-n);
    const bool refused = n < 0 && verdict(Strategy::copy_file_range, error, false) == Verdict::unsupported;
    return refused ? system_error_code(error) : std::error_code{};
  }
  // A pipe of our own, where neither end is one.
  [[nodiscard]] std::error_code ask_pipe() const noexcept {
    if (from_.kind == Kind::pipe || to_.kind == Kind::pipe || from_.kind == Kind::in_flight) return appends();
    OwnPipe pipe;
    if (const sys::Count error = Pool::take(pipe); error < 0) return system_error_code(static_cast<int>(-error));
    Pool::give_back(std::move(pipe));
    return appends();
  }
  // splice(2): EINVAL for a file in append mode.
  [[nodiscard]] std::error_code appends() const noexcept {
    const sys::Count flags = is_file(to_.kind) ? sys::status_flags(to_.fd) : 0;
    return flags >= 0 && (flags & O_APPEND) != 0 ? system_error_code(EINVAL) : std::error_code{};
  }
  [[nodiscard]] std::error_code ask_socket() const noexcept {
    int value = 0;
    if (sys::get_option(to_.fd, SOL_SOCKET, SO_DOMAIN, value) == 0 && value != AF_INET && value != AF_INET6)
      return system_error_code(EOPNOTSUPP);
    if (const sys::Count e = sys::get_option(to_.fd, SOL_SOCKET, SO_ZEROCOPY, value); e < 0)
      return system_error_code(static_cast<int>(-e));
    return value != 0 ? make_error_code(Errc::socket_option_in_use) : std::error_code{};
  }

  const Cursor& from_;
  const Cursor& to_;
  bool drained_;
};

inline std::error_code reason(Standing standing) noexcept {
  switch (standing) {
    case Standing::in_order: return {};
    case Standing::behind_read_write: return Passed::only_when_forced;
    case Standing::other_forced: return Passed::another_forced;
    case Standing::never_serves: return Errc::not_for_this_pair;
    case Standing::not_allowed: return Errc::not_allowed;
    case Standing::shares_pages: return Errc::snapshot_needed;
    case Standing::would_block: return Errc::would_block_uncut;
    case Standing::not_worth_it: return Passed::not_worth_it;
    case Standing::no_promise: return Passed::cannot_promise_more;
  }
  return {};
}

inline Explanation::End explain_end(const Cursor& end) noexcept {
  Explanation::End out;
  out.kind = to_string(end.kind);
  out.fd = end.kind == Kind::in_flight || end.kind == Kind::memory ? -1 : end.fd;
  if (end.kind == Kind::range) out.offset = end.offset;
  return out;
}

// Fills the entries from a job that has been planned.
inline void explain_plan(Job& job, const Standings& standings, Explanation& out) noexcept {
  const StrategyList& order = job.machine.setup.order;
  const StrategySet serving = candidate_table(job.from.kind, job.to.kind).set;
  const bool idle = !out.error && order.empty();
  if (is_socket(job.to.kind)) out.route = find_route(job.to.fd);
  const Copies copies(job, out.route);
  const CallModeler calls(job);
  const Refusals refusals(job);
  out.bytes = calls.bytes();
  const auto explain_one = [&](Strategy strategy) noexcept {
    const Standing standing = standings[static_cast<std::size_t>(strategy)];
    ExplainedStrategy entry;
    entry.strategy = strategy;
    entry.serves = serving.contains(strategy);
    entry.passed_over = reason(standing);
    if (standing == Standing::in_order) entry.refused = refusals.of(strategy);
    if (idle && entry.serves) entry.passed_over = Passed::nothing_to_move;
    if (!entry.serves) return entry;
    entry.cpu_copies = copies.by_cpu(strategy);
    entry.dma_copies = copies.by_devices(strategy);
    entry.model = calls.model(strategy);
    entry.in_user_mode = job.from.kind == Kind::memory && job.to.kind == Kind::memory;
    return entry;
  };
  std::size_t at = 0;
  for (StrategyList rest = order; !rest.empty(); rest.pop_front()) {
    if (standings[static_cast<std::size_t>(rest.front())] != Standing::in_order) continue;
    out.strategies[at] = explain_one(rest.front());
    out.strategies[at].position = at;
    ++at;
  }
  const auto add_rest = [&](bool serves) noexcept {
    for (std::size_t s = 0; s < strategy_count; ++s) {
      const auto strategy = static_cast<Strategy>(s);
      if (standings[s] != Standing::in_order && serving.contains(strategy) == serves)
        out.strategies[at++] = explain_one(strategy);
    }
  };
  add_rest(true);
  add_rest(false);
}

// Nothing is known but what is wrong.
inline void explain_refusal(Explanation& out) noexcept {
  for (std::size_t s = 0; s < strategy_count; ++s) {
    out.strategies[s].strategy = static_cast<Strategy>(s);
    out.strategies[s].passed_over = out.error;
  }
}

template <Kind From, Kind To>
Explanation explain(Job& job) noexcept {
  Driver<From, To>(job).begin();
  Explanation out;
  out.source = explain_end(job.from);
  out.sink = explain_end(job.to);
  out.side = job.machine.side();
  if (job.machine.cause()) out.error = job.machine.cause().code();
  // A forced strategy that can't, or none that may, leaves the order empty too, but for reasons that are worth telling.
  if (out.error && job.machine.setup.order.empty() && out.error != Errc::strategy_unavailable) {
    explain_refusal(out);
    return out;
  }
  explain_plan(job, Planner<From, To>(job).standings(), out);
  return out;
}

// --- the table ----------------------------------------------------------------------------------------------------

inline std::string size_as_text(std::uint64_t bytes) {
  constexpr const char* units[] = {" bytes", " KiB", " MiB", " GiB", " TiB"};
  std::size_t unit = 0;
  for (; unit + 1 < std::size(units) && bytes >= 1024 && bytes % 1024 == 0; ++unit) bytes /= 1024;
  return std::to_string(bytes) + units[unit];
}
inline std::string end_as_text(const Explanation::End& end) {
  std::string text(end.kind);
  if (end.fd >= 0) text += " (fd " + std::to_string(end.fd) + ")";
  if (end.offset) text += " at offset " + std::to_string(*end.offset);
  return text;
}
inline std::string padded(std::string text, std::size_t width) {
  return text.size() < width ? text.append(width - text.size(), ' ') : text;
}
inline std::string right(const std::string& text, std::size_t width) {
  return text.size() < width ? std::string(width - text.size(), ' ') + text : text;
}
inline std::string row_as_text(const ExplainedStrategy& entry, std::uint64_t bytes) {
  const ExpectedCalls calls = entry.calls(bytes);
  std::string count = std::to_string(calls.moving);
  if (calls.ending > 0) count += " + " + std::to_string(calls.ending);
  std::string row = padded(entry.position ? std::to_string(*entry.position + 1) : "-", 3);
  row += padded(std::string(to_string(entry.strategy)), 17);
  row += right(std::to_string(entry.cpu_copies), 10) + right(std::to_string(entry.dma_copies), 12);
  row += right(count, 14) + right(std::to_string(calls.switches), 10);
  if (entry.refused) row += "  refused here: " + entry.refused.message();
  if (!entry.position) row += "  " + entry.passed_over.message();
  return row + "\n";
}
inline std::string flag_as_text(std::optional<bool> flag) { return !flag ? "not known" : *flag ? "on" : "off"; }
inline std::string route_as_text(const Explanation& explanation) {
  const Route& route = *explanation.route;
  std::string text = "leaves through " + route.device + ": scatter-gather " + flag_as_text(route.scatter_gather) +
                     ", checksum offload " + flag_as_text(route.checksum_offload);
  if (!explanation[Strategy::sendfile].serves && !explanation[Strategy::splice].serves) return text + "\n";
  text += route.scatter_gather.value_or(false) ? ": pages are sent where they lie, without a copy into packets"
                                               : ": pages are copied into packets";
  return text + "\n";
}

}  // namespace detail

inline std::string Explanation::text() const {
  std::string text = detail::end_as_text(source) + " to " + detail::end_as_text(sink);
  if (error) {
    text += ": " + error.message();
    if (side != Side::none) text += " (at the " + std::string(to_string(side)) + ")";
  } else {
    text += ", " + detail::size_as_text(bytes);
    if (const auto first = chosen()) text += ": by " + std::string(to_string(*first));
  }
  text += "\n";
  std::string rows;
  std::string never;
  for (const ExplainedStrategy& entry : strategies) {
    if (entry.serves) rows += detail::row_as_text(entry, bytes);
    if (!entry.serves && entry.passed_over == Errc::not_for_this_pair)
      never += (never.empty() ? "" : ", ") + std::string(to_string(entry.strategy));
  }
  if (!rows.empty()) text += "   strategy         CPU copies  DMA copies  calls (+ end)  switches\n" + rows;
  if (!never.empty()) text += "-  never for this pair: " + never + "\n";
  if (route) text += detail::route_as_text(*this);
  return text;
}

/// What `transfer(from, to, options)` would do: the order in which it would try the strategies, why each other one is
/// passed over, and what each one costs. It moves nothing and changes nothing: no byte, position, flag or option.
/// `from` and `to` are what transfer takes; a gather is several transfers and a tee has several sinks, so their parts are
/// explained one by one. A Transfer goes by the same plan, but that it leaves out what it could not keep from blocking on a
/// blocking socket.
/// Errors: none are thrown; `error` of the explanation is what transfer would report before the first byte.
/// Blocking: no. It makes more system calls than the plan of a transfer; the first one in a process also makes those of
/// Capabilities::of_process. Thread safety: any thread. Rests on: rtnetlink(7), netdevice(7), fcntl(2) F_GETPIPE_SZ.
template <class Source, class Sink>
[[nodiscard]] Explanation explain(Source&& from, Sink&& to, const Options& options = {}) noexcept {
  using From = std::remove_cvref_t<Source>;
  using To = std::remove_cvref_t<Sink>;
  static_assert(!detail::is_tee<To>, "zerocopy: a tee is several sinks: explain each one");
  static_assert(sink<Sink> || detail::is_tee<To>, "zerocopy: this type is not a sink. Sinks are those of transfer()");
  static_assert(!detail::is_gather<From>, "zerocopy: a gather is several transfers: explain each part");
  static_assert(source<Source> || std::same_as<From, Stranded> || detail::is_gather<From>,
                "zerocopy: this type is not a source. Sources are those of transfer()");
  const auto make_to = [&] { return detail::as_sink(std::as_const(to)); };
  if constexpr (std::same_as<From, Stranded>) {
    detail::Job job(
        options, [] { return detail::Cursor{.kind = detail::Kind::in_flight}; }, make_to);
    detail::StrandedAccess::lend(from, job);
    const Explanation out = detail::explain<detail::Kind::in_flight, detail::sink_kind<To>()>(job);
    detail::StrandedAccess::take_back(from, job);
    return out;
  } else {
    detail::Job job(
        options, [&] { return detail::as_source(std::as_const(from)); }, make_to);
    return detail::explain<detail::source_kind<From>(), detail::sink_kind<To>()>(job);
  }
}

}  // namespace zerocopy::inline ZEROCOPY_ABI
