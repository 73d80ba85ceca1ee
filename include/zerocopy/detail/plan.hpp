// zerocopy/detail/plan.hpp: looks at both ends before a transfer: what they are, whether the request makes sense, and which
// strategies will be tried in which order. The choice is data. It moves nothing and changes nothing.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/candidates.hpp>  // the table
#include <zerocopy/detail/job.hpp>         // Job

#include <array>  // Standings

#include <linux/magic.h>  // EXT4_SUPER_MAGIC
#include <sys/statfs.h>   // fstatfs

namespace zerocopy::inline ZEROCOPY_ABI::detail {

inline constexpr std::uint64_t smallest_zerocopy_send = 16 * 1024;  // below, pinning the pages costs more than copying

inline constexpr std::uint64_t promised_tail = 64 * 1024;  // what follows sendfile with a promise of more

// Where a strategy stands in a plan. A transfer does not ask; explain does.
enum class Standing : std::uint8_t {
  in_order,
  behind_read_write,  // in the list, but what stands before it is final
  other_forced,
  never_serves,  // not this pair
  not_allowed,
  shares_pages,  // a snapshot is wanted
  would_block,   // no call cuts it short
  not_worth_it,  // too few bytes
  no_promise,    // more follows at once, which sendfile can't say
};
using Standings = std::array<Standing, strategy_count>;

template <Kind From, Kind To>
class Planner {
 public:
  explicit Planner(Job& job) noexcept : job_(job) {}

  // Sets the machine up; where nothing may be moved it has failed, or is at its end.
  [[gnu::always_inline]] void make() noexcept {
    if (!check()) return;
    const Options& options = job_.options;
    Machine::Setup& setup = job_.machine.setup;
    setup.limit = setup.asked = options.length;
    if constexpr (is_bounded(From) || is_bounded(To)) bound(setup);
    // A sink that is also the source ends the source where it ended, whatever is appended to it now.
    if (setup.limit >= clipped_to_ && clipped_to_ != to_end) {
      setup.limit = clipped_to_;
      setup.at_limit = Machine::AtLimit::source_ends;
    }
    if (may_be_socket(To) && job_.to.kind == Kind::messages) {
      setup.message_sink = true;
      setup.collect = job_.from.kind != Kind::messages && !is_memory(From);
    }
    if (can_be(From, Kind::pipe) && !is_file(job_.from.kind)) setup.stream_source = !is_socket(job_.from.kind);
    if constexpr (is_memory(From)) setup.memory_source = true;
    if (setup.limit > 0) choose();
  }

  // A range and memory have a length of their own. A source range's is asked for where the caller names none.
  void bound(Machine::Setup& setup) noexcept {
    const std::uint64_t source_left = From == Kind::range ? job_.from.left : to_end;
    if (From == Kind::range && setup.asked == to_end) setup.asked = source_left;
    setup.limit = std::min({setup.asked, source_left, job_.to.left});
    if (setup.limit == setup.asked || setup.asked == to_end) return;
    setup.at_limit = setup.limit == source_left ? Machine::AtLimit::source_ends : Machine::AtLimit::sink_full;
  }

  // Whether the request is sound. Moves and changes nothing.
  [[gnu::always_inline]] bool check() noexcept {
    return check_end<From>(job_.from, Side::source) && check_end<To>(job_.to, Side::sink) && check_sink_range() &&
           check_same();
  }

  // Of every strategy, after `make`.
  [[nodiscard]] Standings standings() noexcept {
    const Candidates& serving = candidate_table(job_.from.kind, job_.to.kind);
    const Struck struck = strike(serving.set);
    Standings all;
    for (std::size_t s = 0; s < strategy_count; ++s) all[s] = standing(static_cast<Strategy>(s), serving.set, struck);
    return all;
  }

 private:
  bool bad(Cause cause, Side side) noexcept {
    job_.machine.fail(cause, side);
    return false;
  }
  bool bad(sys::Count error, Side side) noexcept { return bad(Cause(static_cast<int>(-error)), side); }

  // --- is the request sound? --------------------------------------------------------------------------------------

  template <Kind K>
  [[gnu::always_inline]] bool check_end(Cursor& end, Side side) noexcept {
    if constexpr (is_memory(K) || K == Kind::in_flight) return true;
    if (end.fd < 0) return bad(Cause(EBADF), side);
    if constexpr (K == Kind::range) {
      constexpr std::uint64_t most = INT64_MAX;
      const bool overflows = end.offset > most || (end.left != to_end && end.left > most - end.offset);
      if (overflows) return bad(Cause(Errc::offset_overflow), side);
    }
    if constexpr (K == Kind::any)
      if (!find_kind(end, side)) return false;
    if constexpr (K != Kind::socket && K != Kind::pipe)
      if (end.id.type == FileId::Type::directory) return bad(Cause(EISDIR), side);
    if constexpr (K == Kind::any || K == Kind::socket)
      if (end.kind == Kind::messages && side == Side::source) return find_domain(end);
    return true;
  }
  [[gnu::always_inline]] bool find_kind(Cursor& end, Side side) noexcept {
    if (!find_id(end, side)) return false;
    end.kind = kind_of(end.id);
    if (end.id.type != FileId::Type::socket) return true;
    int type = 0;
    if (const sys::Count error = sys::get_option(end.fd, SOL_SOCKET, SO_TYPE, type); error < 0) return bad(error, side);
    end.kind = type == SOCK_STREAM ? Kind::socket : Kind::messages;
    return true;
  }
  // One fstat an end, at the most; none where a handle knows.
  [[gnu::always_inline]] bool find_id(Cursor& end, Side side) noexcept {
    if (end.id.type != FileId::Type::unknown) return true;
    struct stat found;
    if (const sys::Count error = sys::stat(end.fd, found); error < 0) return bad(error, side);
    end.id = FileId::of(found);
    if (side == Side::source && end.id.type == FileId::Type::regular)
      job_.source_size = static_cast<std::uint64_t>(found.st_size);
    return true;
  }
  bool find_domain(Cursor& end) noexcept {
    int domain = 0;
    const sys::Count error = sys::get_option(end.fd, SOL_SOCKET, SO_DOMAIN, domain);
    if (error < 0) return bad(error, Side::source);
    end.large_messages = domain == AF_UNIX;
    return true;
  }
  bool check_sink_range() noexcept {
    if constexpr (To == Kind::range) {
      const sys::Count flags = sys::status_flags(job_.to.fd);
      if (flags < 0) return bad(flags, Side::sink);
      if ((flags & O_APPEND) != 0) return bad(Cause(Errc::offset_with_append), Side::sink);
    }
    return true;
  }
  // One descriptor, one pipe, or overlapping ranges of one file: the source would read what was just written.
  [[gnu::always_inline]] bool check_same() noexcept {
    constexpr bool either_any = From == Kind::any || To == Kind::any;
    constexpr bool one_socket = !either_any && (From == Kind::socket) != (To == Kind::socket);
    if constexpr (From == Kind::memory || To == Kind::memory || From == Kind::in_flight || one_socket) return true;
    constexpr bool at_position = From != Kind::range && To != Kind::range && !is_memory(From) && !is_memory(To);
    if (at_position && job_.from.fd == job_.to.fd) return bad(Cause(Errc::same_file), Side::sink);
    const bool files = has_inode<From>(job_.from) && has_inode<To>(job_.to);
    const bool pipes = job_.from.kind == Kind::pipe && job_.to.kind == Kind::pipe;
    return (!files && !pipes) || check_inodes(pipes);
  }
  bool check_inodes(bool pipes) noexcept {
    if (!find_id(job_.from, Side::source) || !find_id(job_.to, Side::sink)) return false;
    if (!job_.from.id.is_same_inode(job_.to.id)) return true;
    return pipes ? bad(Cause(Errc::same_file), Side::sink) : check_overlap();
  }
  // A private mapping has none: what is stored there never reaches its file.
  template <Kind K>
  static bool has_inode(const Cursor& end) noexcept {
    if constexpr (K == Kind::mapping) return end.id.type != FileId::Type::unknown;
    return is_file(end.kind);
  }
  bool check_overlap() noexcept {
    struct stat file;
    if (const sys::Count error = sys::stat(job_.from.fd, file); error < 0) return bad(error, Side::source);
    const std::uint64_t size = reach(file);
    std::uint64_t in = 0;
    std::uint64_t out = 0;
    if (!offset_of(job_.from, in, Side::source) || !offset_of(job_.to, out, Side::sink)) return false;
    if (job_.to.kind == Kind::file && (sys::status_flags(job_.to.fd) & O_APPEND) != 0) out = size;
    const std::uint64_t there = in < size ? size - in : 0;
    const std::uint64_t length = std::min({job_.options.length, job_.from.left, job_.to.left, there});
    if (length > 0 && in < out + length && out < in + length) return bad(Cause(Errc::same_file), Side::sink);
    clipped_to_ = there;
    return true;
  }
  bool offset_of(const Cursor& end, std::uint64_t& offset, Side side) noexcept {
    offset = end.offset;
    if (end.positioned) return true;
    const sys::Count at = sys::seek(end.fd, 0, SEEK_CUR);
    if (at < 0) return bad(at, side);
    offset = static_cast<std::uint64_t>(at);
    return true;
  }

  // --- which strategies, in which order? ---------------------------------------------------------------------------

  [[gnu::always_inline]] void choose() noexcept {
    Machine::Setup& setup = job_.machine.setup;
    const Candidates& serving = candidate_table(job_.from.kind, job_.to.kind);
    StrategySet serves = serving.set;
    if constexpr (From == Kind::in_flight)
      if (job_.machine.buffered() > 0) serves.erase(Strategy::splice);  // not all that is in flight is in the pipe
    const Struck struck = strike(serves);
    if (job_.options.strategy) {
      const Strategy forced = *job_.options.strategy;
      if (!(serves - struck.impossible()).contains(forced)) return refuse(forced, serves, struck);
      setup.forced = true;
      setup.order = {forced};
    } else {
      setup.order = serving.list;
      if (!struck.all().empty()) leave_out(struck);
      if (setup.order.empty()) return job_.machine.fail(Cause(Errc::strategy_unavailable), Side::none);
    }
    if constexpr (may_be_socket(To) && (is_file(From) || From == Kind::any))
      if (leaves_promise()) hand_over();
    // Of what is in flight already the pipe is drained by splice, unless that is not wanted.
    if constexpr (From == Kind::in_flight) setup.refuse_pipe = setup.order.front() == Strategy::read_write;
    // splice from a blocking socket would block: it is polled first.
    if constexpr (may_be_socket(From))
      if (is_socket(job_.from.kind) && setup.order.contains(Strategy::splice))
        job_.tools.poll_before_splice = is_blocking(job_.from);
  }

  // What can't be used with these options, and what does not pay.
  struct Struck {
    StrategySet not_allowed;
    StrategySet shares;
    StrategySet uncuttable;
    StrategySet not_worth_it;

    [[nodiscard]] constexpr StrategySet impossible() const noexcept { return not_allowed | shares | uncuttable; }
    [[nodiscard]] constexpr StrategySet all() const noexcept { return impossible() | not_worth_it; }
  };
  [[gnu::always_inline]] Struck strike(StrategySet serving) noexcept {
    Struck struck;
    struck.not_allowed = serving - job_.options.allow;
    constexpr Aliasing usual = From == Kind::memory ? Aliasing::snapshot : Aliasing::shared;
    const Aliasing wanted = job_.options.aliasing == Aliasing::automatic ? usual : job_.options.aliasing;
    if (wanted == Aliasing::snapshot && !is_unchangeable()) struck.shares = serving & sharing();
    if (job_.limits.paced() || job_.stepped) struck.uncuttable = keep_from_blocking(serving);
    if constexpr (From == Kind::memory)
      if (job_.from.left < smallest_zerocopy_send) struck.not_worth_it.insert(Strategy::send_zerocopy);
    return struck;
  }
  // Into a blocking socket: a time limit has calls cut short, but a step can't wait for even a short one. A tty that blocks
  // obeys neither.
  StrategySet keep_from_blocking(StrategySet serving) noexcept {
    if (!job_.limits.limited() && !job_.stepped) return {};
    if (is_blocking_tty(job_.from) || is_blocking_tty(job_.to)) return serving & uncuttable;
    if (!is_socket(job_.to.kind) || !is_blocking(job_.to)) return {};
    job_.tools.cut_sends = !job_.stepped;
    return job_.stepped ? serving & uncuttable : StrategySet{};
  }
  static bool is_blocking_tty(const Cursor& end) noexcept {
    return end.kind == Kind::device && is_blocking(end) && ::isatty(end.fd) == 1;
  }
  void refuse(Strategy forced, StrategySet serving, const Struck& struck) noexcept {
    Errc why = Errc::not_for_this_pair;
    if (serving.contains(forced)) {
      why = struck.not_allowed.contains(forced) ? Errc::not_allowed
            : struck.shares.contains(forced)    ? Errc::snapshot_needed
                                                : Errc::would_block_uncut;
    }
    job_.machine.pass_over(forced, Cause(why));
    job_.machine.fail(Cause(Errc::strategy_unavailable), Side::none);
  }
  // sendfile can't say that more follows, and would end with a partial packet: the last bytes are left to the next strategy.
  [[gnu::always_inline]] [[nodiscard]] bool leaves_promise() const noexcept {
    return job_.options.more && !job_.options.strategy && job_.to.kind == Kind::socket;
  }
  void hand_over() noexcept {
    Machine::Setup& setup = job_.machine.setup;
    StrategyList next = setup.order;
    next.pop_front();
    if (setup.order.front() != Strategy::sendfile || next.empty()) return;
    struct stat file;
    std::uint64_t at = 0;
    if (sys::stat(job_.from.fd, file) < 0 || !offset_of(job_.from, at, Side::source)) return;
    const std::uint64_t size = reach(file);
    const std::uint64_t here = std::min(setup.limit, size - std::min(size, at));
    if (here <= promised_tail) return void(setup.order = next);
    setup.then_at_limit = std::exchange(setup.at_limit, Machine::AtLimit::hand_over);
    setup.then_limit = std::exchange(setup.limit, here - promised_tail);
  }
  void leave_out(const Struck& struck) noexcept {
    StrategyList all = std::exchange(job_.machine.setup.order, {});
    for (; !all.empty(); all.pop_front()) {
      const Strategy s = all.front();
      if (!struck.all().contains(s)) job_.machine.setup.order.add(s);
      // A better way that the descriptor's own flags rule out is worth telling.
      if (struck.uncuttable.contains(s)) job_.machine.pass_over(s, Cause(Errc::would_block_uncut));
    }
  }

  [[nodiscard]] Standing standing(Strategy strategy, StrategySet serving, const Struck& struck) const noexcept {
    for (StrategyList rest = job_.machine.setup.order; !rest.empty(); rest.pop_front()) {
      if (rest.front() == strategy) return Standing::in_order;
      if (rest.front() == Strategy::read_write) break;
    }
    if (!serving.contains(strategy)) return Standing::never_serves;
    if (struck.not_allowed.contains(strategy)) return Standing::not_allowed;
    if (struck.shares.contains(strategy)) return Standing::shares_pages;
    if (struck.uncuttable.contains(strategy)) return Standing::would_block;
    if (job_.options.strategy && *job_.options.strategy != strategy) return Standing::other_forced;
    if (struck.not_worth_it.contains(strategy)) return Standing::not_worth_it;
    return strategy == Strategy::sendfile && leaves_promise() ? Standing::no_promise : Standing::behind_read_write;
  }

  // Calls into a blocking socket that no flag cuts short.
  static constexpr StrategySet uncuttable{Strategy::sendfile, Strategy::splice, Strategy::vmsplice};

  // The strategies that pass the source's own pages on.
  [[nodiscard]] StrategySet sharing() const noexcept {
    StrategySet set{Strategy::vmsplice, Strategy::send_zerocopy};
    if (is_file(job_.from.kind) && !is_file(job_.to.kind)) set.insert(Strategy::sendfile).insert(Strategy::splice);
    return set;
  }
  // A memfd sealed against writing and shrinking, or an immutable file.
  [[nodiscard]] bool is_unchangeable() const noexcept {
    if (!is_file(job_.from.kind)) return false;
    const int seals = ::fcntl(job_.from.fd, F_GET_SEALS);
    if (seals >= 0 && (seals & F_SEAL_WRITE) != 0 && (seals & F_SEAL_SHRINK) != 0) return true;
    // ext4 keeps its word to a descriptor that was open for writing before; others do not.
    struct statfs system;
    if (::fstatfs(job_.from.fd, &system) != 0 || system.f_type != EXT4_SUPER_MAGIC) return false;
    struct statx file;
    return ::statx(job_.from.fd, "", AT_EMPTY_PATH, STATX_TYPE, &file) == 0 &&
           (file.stx_attributes & STATX_ATTR_IMMUTABLE) != 0;
  }
  static bool is_blocking(const Cursor& end) noexcept {
    const sys::Count flags = sys::status_flags(end.fd);
    return flags >= 0 && (flags & O_NONBLOCK) == 0;
  }
  Job& job_;
  std::uint64_t clipped_to_ = to_end;  // where one file is both ends: the source as it is now
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
