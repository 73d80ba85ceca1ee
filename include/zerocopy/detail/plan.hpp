// zerocopy/detail/plan.hpp: looks at both ends before a transfer: what they are, whether the request makes sense, and which
// strategies will be tried in which order. The choice is data. It moves nothing and changes nothing.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/candidates.hpp>  // the table
#include <zerocopy/detail/wait.hpp>        // Limits
#include <zerocopy/options.hpp>            // Options

#include <array>  // what was learned about devices

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// Devices whose file system refused to share extents, so that it is asked once a thread and not once a file.
class ReflinkRefusals {
 public:
  [[nodiscard]] bool contains(dev_t device) const noexcept {
    return std::find(devices_.begin(), devices_.end(), device) != devices_.end();
  }
  void add(dev_t device) noexcept {
    if (!contains(device)) devices_[next_++ % devices_.size()] = device;
  }

 private:
  std::array<dev_t, 8> devices_{};
  std::size_t next_ = 0;
};
inline thread_local constinit ReflinkRefusals reflink_refusals;

inline constexpr std::uint64_t smallest_reflink = 64 * 1024;        // below, a copy is faster
inline constexpr std::uint64_t smallest_zerocopy_send = 16 * 1024;  // below, pinning the pages costs more than copying

struct Plan {
  Machine::Setup setup;
  Cause cause;  // the request is bad; nothing may be moved
  Side side = Side::none;
  std::uint64_t source_size = to_end;  // of a file source, where it was looked at
  dev_t source_device = 0;
  bool poll_before_splice = false;
};

class Planner {
 public:
  Planner(Cursor& from, Cursor& to, const Options& options, const Limits& limits) noexcept
      : from_(from), to_(to), options_(options), limits_(limits) {}

  Plan make() noexcept {
    if (!check()) return plan_;
    Machine::Setup& setup = plan_.setup;
    setup.asked = from_.kind == Kind::range ? std::min(options_.length, from_.left) : options_.length;
    setup.limit = std::min(setup.asked, to_.left);
    setup.message_sink = to_.kind == Kind::messages;
    setup.collect = setup.message_sink && from_.kind != Kind::messages && !is_memory(from_.kind);
    setup.socket_source = is_socket(from_.kind);
    setup.memory_source = is_memory(from_.kind);
    setup.forced = options_.strategy.has_value();
    if (setup.limit > 0) choose();
    return plan_;
  }

 private:
  bool bad(Cause cause, Side side) noexcept {
    plan_.cause = cause;
    plan_.side = side;
    return false;
  }
  bool bad(sys::Count error, Side side) noexcept { return bad(Cause(static_cast<int>(-error)), side); }

  // --- is the request sound? --------------------------------------------------------------------------------------

  bool check() noexcept {
    return check_end(from_, Side::source) && check_end(to_, Side::sink) && check_sink_range() && check_same();
  }
  bool check_end(Cursor& end, Side side) noexcept {
    if (is_memory(end.kind) || end.kind == Kind::in_flight) return true;
    if (end.fd < 0) return bad(Cause(EBADF), side);
    if (end.kind == Kind::range) {
      constexpr std::uint64_t most = INT64_MAX;
      const bool overflows = end.offset > most || (end.left != to_end && end.left > most - end.offset);
      return !overflows || bad(Cause(Errc::offset_overflow), side);
    }
    if (end.kind == Kind::any && !find_kind(end, side)) return false;
    if (end.kind == Kind::messages && side == Side::source) {
      int domain = 0;
      if (const sys::Count error = sys::get_option(end.fd, SOL_SOCKET, SO_DOMAIN, domain); error < 0)
        return bad(error, side);
      end.large_messages = domain == AF_UNIX;
    }
    return true;
  }
  bool find_kind(Cursor& end, Side side) noexcept {
    struct stat& found = side == Side::source ? from_stat_ : to_stat_;
    if (const sys::Count error = sys::stat(end.fd, found); error < 0) return bad(error, side);
    switch (found.st_mode & S_IFMT) {
      case S_IFREG:
      case S_IFBLK: end.kind = Kind::file; break;
      case S_IFIFO: end.kind = Kind::pipe; break;
      case S_IFDIR: return bad(Cause(EISDIR), side);
      case S_IFSOCK: {
        int type = 0;
        if (const sys::Count error = sys::get_option(end.fd, SOL_SOCKET, SO_TYPE, type); error < 0)
          return bad(error, side);
        end.kind = type == SOCK_STREAM ? Kind::socket : Kind::messages;
        break;
      }
      default: end.kind = Kind::device; break;
    }
    (side == Side::source ? from_known_ : to_known_) = true;
    return true;
  }
  bool check_sink_range() noexcept {
    if (to_.kind != Kind::range) return true;
    const sys::Count flags = sys::status_flags(to_.fd);
    if (flags < 0) return bad(flags, Side::sink);
    return (flags & O_APPEND) == 0 || bad(Cause(Errc::offset_with_append), Side::sink);
  }
  // One descriptor, one pipe, or overlapping ranges of one file: the source would read what was just written.
  bool check_same() noexcept {
    const bool descriptors = from_.fd >= 0 && to_.fd >= 0 && !is_memory(from_.kind);
    if (!descriptors) return true;
    const bool ranges = from_.kind == Kind::range || to_.kind == Kind::range;
    if (from_.fd == to_.fd && !ranges) return bad(Cause(Errc::same_file), Side::sink);
    const bool files = is_file(from_.kind) && is_file(to_.kind);
    const bool pipes = from_.kind == Kind::pipe && to_.kind == Kind::pipe;
    if (!files && !pipes) return true;
    if (!from_known_ && !find_kind_of_file(from_, from_stat_, Side::source)) return false;
    if (!to_known_ && !find_kind_of_file(to_, to_stat_, Side::sink)) return false;
    from_known_ = to_known_ = true;
    const bool same = from_stat_.st_dev == to_stat_.st_dev && from_stat_.st_ino == to_stat_.st_ino;
    if (!same || from_.kind == Kind::device || to_.kind == Kind::device) return true;
    if (from_.kind == Kind::pipe) return bad(Cause(Errc::same_file), Side::sink);
    return check_overlap();
  }
  // A File can be open on something that is no file.
  bool find_kind_of_file(Cursor& end, struct stat& found, Side side) noexcept {
    if (const sys::Count error = sys::stat(end.fd, found); error < 0) return bad(error, side);
    if (S_ISDIR(found.st_mode)) return bad(Cause(EISDIR), side);
    if (end.kind == Kind::file && S_ISCHR(found.st_mode)) end.kind = Kind::device;
    if (end.kind == Kind::file && S_ISFIFO(found.st_mode)) end.kind = Kind::pipe;
    return true;
  }
  bool check_overlap() noexcept {
    const auto size = static_cast<std::uint64_t>(from_stat_.st_size);
    std::uint64_t in = 0;
    std::uint64_t out = 0;
    if (!offset_of(from_, in, Side::source) || !offset_of(to_, out, Side::sink)) return false;
    if (to_.kind == Kind::file && (sys::status_flags(to_.fd) & O_APPEND) != 0) out = size;
    const std::uint64_t there = in < size ? size - in : 0;
    const std::uint64_t length = std::min({options_.length, from_.left, to_.left, there});
    if (length > 0 && in < out + length && out < in + length) return bad(Cause(Errc::same_file), Side::sink);
    to_.left = std::min(to_.left, length);  // what is appended now is not part of the source
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

  void choose() noexcept {
    if (from_known_ && is_file(from_.kind)) {
      plan_.source_size = static_cast<std::uint64_t>(from_stat_.st_size);
      plan_.source_device = from_stat_.st_dev;
    }
    // What is in flight already is drained: the pipe by splice, the buffer by writing.
    const bool only_drains = from_.kind == Kind::in_flight;
    const StrategyList list =
        only_drains ? StrategyList{Strategy::splice, Strategy::read_write} : candidates(from_.kind, to_.kind);
    plan_.setup.ended = only_drains;
    plan_.setup.refuse_pipe = only_drains && (options_.strategy == Strategy::read_write ||
                                              !options_.allow.contains(Strategy::splice));
    if (options_.strategy) {
      const Strategy forced = *options_.strategy;
      const Cause why_not = list.set().contains(forced) ? refusal(forced) : Cause(Errc::not_for_this_pair);
      if (why_not) {
        plan_.setup.trail.add(forced, why_not);
      } else {
        plan_.setup.order.add(forced);
      }
    } else {
      for (std::size_t i = 0; i < list.size; ++i) consider(list.items[i]);
    }
    const bool splices_socket = is_socket(from_.kind) && plan_.setup.order.set().contains(Strategy::splice);
    if (splices_socket) {
      const sys::Count flags = sys::status_flags(from_.fd);
      plan_.poll_before_splice = flags >= 0 && (flags & O_NONBLOCK) == 0;
    }
    if (plan_.setup.order.size == 0) bad(Cause(Errc::strategy_unavailable), Side::none);
  }
  void consider(Strategy s) noexcept {
    const Cause why_not = refusal(s);
    if (!why_not) {
      if (is_worth_it(s)) plan_.setup.order.add(s);
    } else if (why_not == Cause(Errc::would_block_uncut)) {
      plan_.setup.trail.add(s, why_not);  // a better way that the descriptor's own flags rule out
    }
  }
  // Why a strategy that serves the pair can't be used with these options, if so.
  Cause refusal(Strategy s) noexcept {
    if (!options_.allow.contains(s)) return Cause(Errc::not_allowed);
    if (is_sharing(s) && is_snapshot() && !is_unchangeable()) return Cause(Errc::snapshot_needed);
    if (is_uncuttable(s)) return Cause(Errc::would_block_uncut);
    return {};
  }
  [[nodiscard]] bool is_sharing(Strategy s) const noexcept {
    if (s == Strategy::vmsplice || s == Strategy::send_zerocopy) return true;
    const bool passes_pages = s == Strategy::sendfile || s == Strategy::splice;
    return passes_pages && is_file(from_.kind) && !is_file(to_.kind);
  }
  [[nodiscard]] bool is_snapshot() const noexcept {
    if (options_.aliasing != Aliasing::automatic) return options_.aliasing == Aliasing::snapshot;
    return from_.kind == Kind::memory;
  }
  // A memfd sealed against writing.
  [[nodiscard]] bool is_unchangeable() const noexcept {
    if (from_.fd < 0 || is_memory(from_.kind)) return false;
    const int seals = ::fcntl(from_.fd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_WRITE) != 0 && (seals & F_SEAL_SHRINK) != 0;
  }
  // sendfile and splice into a blocking socket can't be cut short by any flag.
  [[nodiscard]] bool is_uncuttable(Strategy s) noexcept {
    const bool plain = s == Strategy::sendfile || s == Strategy::splice || s == Strategy::vmsplice;
    if (!limits_.limited() || !plain || !is_socket(to_.kind)) return false;
    if (sink_flags_ == unknown_flags) sink_flags_ = sys::status_flags(to_.fd);
    return sink_flags_ >= 0 && (sink_flags_ & O_NONBLOCK) == 0;
  }
  [[nodiscard]] bool is_worth_it(Strategy s) const noexcept {
    if (s == Strategy::reflink)
      return from_known_ && static_cast<std::uint64_t>(from_stat_.st_size) >= smallest_reflink &&
             plan_.setup.limit >= smallest_reflink && from_stat_.st_dev == to_stat_.st_dev &&
             !reflink_refusals.contains(from_stat_.st_dev);
    if (s == Strategy::send_zerocopy) return from_.left >= smallest_zerocopy_send;
    return true;
  }

  static constexpr sys::Count unknown_flags = INT64_MIN;

  Cursor& from_;
  Cursor& to_;
  const Options& options_;
  const Limits& limits_;
  Plan plan_;
  sys::Count sink_flags_ = unknown_flags;
  bool from_known_ = false;
  bool to_known_ = false;
  struct stat from_stat_;
  struct stat to_stat_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
