// zerocopy/detail/plan.hpp: looks at both ends before a transfer: what they are, whether the request makes sense, and which
// strategies will be tried in which order. The choice is data. It moves nothing and changes nothing.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/candidates.hpp>  // the table
#include <zerocopy/detail/job.hpp>         // Job

namespace zerocopy::inline ZEROCOPY_ABI::detail {

inline constexpr std::uint64_t smallest_zerocopy_send = 16 * 1024;  // below, pinning the pages costs more than copying

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
};

template <Kind From, Kind To>
class Planner {
 public:
  explicit Planner(Job& job) noexcept : job_(job) {}

  // Sets the machine up; where nothing may be moved it has failed, or is at its end.
  [[gnu::always_inline]] void make() noexcept {
    if (!check()) return;
    const Options& options = job_.options;
    Machine::Setup& setup = job_.machine.setup;
    // What the source can give is its range's length, or what there was of it where one file is both ends.
    const std::uint64_t source_left = From == Kind::range ? std::min(job_.from.left, clipped_to_) : clipped_to_;
    setup.asked = From == Kind::range && options.length == to_end ? job_.from.left : options.length;
    setup.limit = std::min({setup.asked, source_left, job_.to.left});
    if (setup.limit < setup.asked && setup.asked != to_end) {
      setup.ends_at_limit = setup.limit == source_left;
      setup.fills_at_limit = !setup.ends_at_limit;
    }
    // A sink that is also the source ends the source where it ended, whatever is appended to it now.
    if (setup.limit == clipped_to_ && clipped_to_ != to_end) setup.ends_at_limit = true;
    if (job_.to.kind == Kind::messages) {
      setup.message_sink = true;
      setup.collect = job_.from.kind != Kind::messages && !is_memory(From);
    }
    setup.socket_source = is_socket(job_.from.kind);
    setup.memory_source = is_memory(From);
    setup.forced = options.strategy.has_value();
    if (job_.to.kind == Kind::device && job_.limits.limited()) job_.tools.polled_piece = 1;  // a tty has room for one
    if (setup.limit > 0) choose();
  }

  // Whether the request is sound. Moves and changes nothing.
  [[gnu::always_inline]] bool check() noexcept {
    return check_end<From>(job_.from, Side::source) && check_end<To>(job_.to, Side::sink) && check_sink_range() &&
           check_same();
  }

  // After `make`.
  [[nodiscard]] Standing standing(Strategy strategy) const noexcept {
    const StrategyList& order = job_.machine.setup.order;
    for (std::size_t i = 0; i < order.size; ++i) {
      if (order.items[i] == strategy) return Standing::in_order;
      if (order.items[i] == Strategy::read_write) break;
    }
    if (!candidate_table(job_.from.kind, job_.to.kind).set.contains(strategy)) return Standing::never_serves;
    if (not_allowed_.contains(strategy)) return Standing::not_allowed;
    if (shares_.contains(strategy)) return Standing::shares_pages;
    if (uncuttable_.contains(strategy)) return Standing::would_block;
    if (job_.options.strategy && *job_.options.strategy != strategy) return Standing::other_forced;
    return not_worth_it_.contains(strategy) ? Standing::not_worth_it : Standing::behind_read_write;
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
  bool check_same() noexcept {
    if constexpr (From == Kind::memory || To == Kind::memory || From == Kind::in_flight) return true;
    constexpr bool at_position = From != Kind::range && To != Kind::range && !is_memory(From) && !is_memory(To);
    if (at_position && job_.from.fd == job_.to.fd) return bad(Cause(Errc::same_file), Side::sink);
    const bool files = has_inode<From>(job_.from) && has_inode<To>(job_.to);
    const bool pipes = job_.from.kind == Kind::pipe && job_.to.kind == Kind::pipe;
    if (!files && !pipes) return true;
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

  [[gnu::always_inline]] bool choose() noexcept {
    Machine::Setup& setup = job_.machine.setup;
    const Candidates& serving = candidate_table(job_.from.kind, job_.to.kind);
    StrategySet serves = serving.set;
    if constexpr (From == Kind::in_flight)
      if (job_.machine.buffered() > 0) serves.erase(Strategy::splice);  // not all that is in flight is in the pipe
    strike(serves);
    const StrategySet struck = not_allowed_ | shares_ | uncuttable_;
    if (job_.options.strategy) {
      const Strategy forced = *job_.options.strategy;
      if (!(serves - struck).contains(forced)) return refuse(forced, serves);
      setup.order = {forced};
    } else {
      setup.order = serving.list;
      if (!(struck | not_worth_it_).empty()) leave_out(struck | not_worth_it_);
      if (setup.order.size == 0) return bad(Cause(Errc::strategy_unavailable), Side::none);
    }
    // Of what is in flight already the pipe is drained by splice, unless that is not wanted.
    if constexpr (From == Kind::in_flight) setup.refuse_pipe = setup.order.items[0] == Strategy::read_write;
    if constexpr (From == Kind::socket || From == Kind::any) return look_at_socket_source();
    return true;
  }

  // What can't be used with these options, and what does not pay.
  [[gnu::always_inline]] void strike(StrategySet serving) noexcept {
    not_allowed_ = serving - job_.options.allow;
    constexpr Aliasing usual = From == Kind::memory ? Aliasing::snapshot : Aliasing::shared;
    const Aliasing wanted = job_.options.aliasing == Aliasing::automatic ? usual : job_.options.aliasing;
    if (wanted == Aliasing::snapshot && !is_unchangeable()) shares_ = serving & sharing();
    if (job_.limits.limited() && is_socket(job_.to.kind) && is_blocking(job_.to)) uncuttable_ = serving & uncuttable;
    if constexpr (From == Kind::memory)
      if (job_.from.left < smallest_zerocopy_send) not_worth_it_.insert(Strategy::send_zerocopy);
  }
  bool refuse(Strategy forced, StrategySet serving) noexcept {
    Errc why = Errc::not_for_this_pair;
    if (serving.contains(forced)) {
      why = not_allowed_.contains(forced) ? Errc::not_allowed
            : shares_.contains(forced)    ? Errc::snapshot_needed
                                          : Errc::would_block_uncut;
    }
    job_.machine.pass_over(forced, Cause(why));
    return bad(Cause(Errc::strategy_unavailable), Side::none);
  }
  void leave_out(StrategySet struck) noexcept {
    const StrategyList all = job_.machine.setup.order;
    job_.machine.setup.order = {};
    for (std::size_t i = 0; i < all.size; ++i) {
      const Strategy s = all.items[i];
      if (!struck.contains(s)) job_.machine.setup.order.add(s);
      // A better way that the descriptor's own flags rule out is worth telling.
      if (uncuttable_.contains(s)) job_.machine.pass_over(s, Cause(Errc::would_block_uncut));
    }
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
    struct statx file;
    return ::statx(job_.from.fd, "", AT_EMPTY_PATH, STATX_TYPE, &file) == 0 &&
           (file.stx_attributes & STATX_ATTR_IMMUTABLE) != 0;
  }
  static bool is_blocking(const Cursor& end) noexcept {
    const sys::Count flags = sys::status_flags(end.fd);
    return flags >= 0 && (flags & O_NONBLOCK) == 0;
  }
  // splice from a blocking socket would block: it is polled first, where a listening one would never be ready.
  bool look_at_socket_source() noexcept {
    if (!is_socket(job_.from.kind) || !job_.machine.setup.order.contains(Strategy::splice)) return true;
    job_.tools.poll_before_splice = is_blocking(job_.from);
    if (!job_.tools.poll_before_splice) return true;
    int listens = 0;
    if (const sys::Count error = sys::get_option(job_.from.fd, SOL_SOCKET, SO_ACCEPTCONN, listens); error < 0)
      return bad(error, Side::source);
    return listens == 0 || bad(Cause(ENOTCONN), Side::source);
  }

  Job& job_;
  std::uint64_t clipped_to_ = to_end;  // where one file is both ends: the source as it is now
  StrategySet not_allowed_;
  StrategySet shares_;
  StrategySet uncuttable_;
  StrategySet not_worth_it_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
