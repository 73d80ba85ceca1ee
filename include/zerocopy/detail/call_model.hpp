// zerocopy/detail/call_model.hpp: the numbers that strategies cut a transfer by (pipe and socket capacities, windows, the pace),
// asked of both ends: what call_count.hpp counts with.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/capabilities.hpp>             // what pipes obey
#include <zerocopy/detail/call_count.hpp>        // CallModel
#include <zerocopy/detail/diagnosis.hpp>         // source_offset
#include <zerocopy/detail/strategy/reflink.hpp>  // its piece

#include <sys/statfs.h>  // fstatfs

#include <algorithm>  // std::min

namespace zerocopy::inline ZEROCOPY_ABI::detail {

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
    model.stream_source = setup.stream_source;
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
      there = size - std::min(size, offset());
    } else if (limit != to_end) {
      there = limit;
    }
    return std::min(there, limit);
  }

 private:
  static constexpr std::uint64_t most = sys::most_per_call;

  // Of the source's next byte.
  [[nodiscard]] std::uint64_t offset() const noexcept {
    return static_cast<std::uint64_t>(std::max<sys::Count>(Diagnosis(job_).source_offset(), 0));
  }

  void set_sizes(CallModel& model) const noexcept {
    const Kind from = job_.from.kind;
    const Kind to = job_.to.kind;
    switch (model.strategy) {
      case Strategy::reflink: model.hop = Reflink::piece; return;
      case Strategy::copy_file_range:
      case Strategy::sendfile: model.hop = most; return;
      case Strategy::splice:
        if (from == Kind::pipe || to == Kind::pipe) {
          model.hop = std::min(from_capacity_, to_capacity_);
        } else {
          model.hop = from == Kind::in_flight ? most : pooled();
          model.drain = from == Kind::in_flight ? 0 : most;
        }
        if (is_file(from)) model.first_less = offset() % page();
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

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
