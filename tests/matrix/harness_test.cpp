// The cases, expectations and checks of the matrix, see support/matrix.hpp; and a test that they notice a liar.
#include "catch.hpp"
#include "support/matrix.hpp"

#include <atomic>
#include <iostream>
#include <iterator>
#include <map>
#include <mutex>

namespace matrix {

using ends::Bytes;
using zc::Errc;
using zc::StopReason;
using zc::Strategy;

const char* name_of(SourceKind kind) {
  static constexpr const char* names[] = {"File",
                                          "FileRange",
                                          "MappedFile",
                                          "MemoryFile",
                                          "PipeReader",
                                          "Socket(tcp)",
                                          "Socket(unix)",
                                          "span",
                                          "BorrowedFd(file)",
                                          "BorrowedFd(pipe)",
                                          "BorrowedFd(tcp)",
                                          "BorrowedFd(unix)",
                                          "Stranded(buffer)",
                                          "Stranded(pipe)"};
  return names[static_cast<int>(kind)];
}
const char* name_of(SinkKind kind) {
  static constexpr const char* names[] = {"File",
                                          "FileRange",
                                          "File(append)",
                                          "WritableMappedFile",
                                          "MemoryFile",
                                          "PipeWriter",
                                          "Socket(tcp)",
                                          "Socket(unix)",
                                          "span",
                                          "BorrowedFd(file)",
                                          "BorrowedFd(append)",
                                          "BorrowedFd(pipe)",
                                          "BorrowedFd(tcp)",
                                          "BorrowedFd(unix)"};
  return names[static_cast<int>(kind)];
}

std::string Case::text() const {
  std::string s = std::string(name_of(source)) + " -> " + name_of(sink);
  s += std::string(", ") + (strategy ? std::string(to_string(*strategy)) : "automatic") + ", size " +
       std::to_string(size);
  s += ", from " + std::to_string(source_offset) + " to " + std::to_string(sink_offset);
  s += ", length " + (length == zc::to_end ? std::string("to_end") : std::to_string(length));
  if (source_blocks) s += ", blocking source";
  if (sink_blocks) s += ", blocking sink";
  if (sink_empty) s += ", sink empty";
  if (small_buffer) s += ", small send buffer";
  return s;
}

namespace {

// ---- kinds ----

bool reads_file(SourceKind k) {
  return k == SourceKind::file || k == SourceKind::file_range || k == SourceKind::memory_file ||
         k == SourceKind::borrowed_file;
}
bool is_pipe(SourceKind k) { return k == SourceKind::pipe || k == SourceKind::borrowed_pipe; }
bool is_socket(SourceKind k) {
  return k == SourceKind::tcp || k == SourceKind::unix_stream || k == SourceKind::borrowed_tcp ||
         k == SourceKind::borrowed_unix;
}
bool is_tcp(SourceKind k) { return k == SourceKind::tcp || k == SourceKind::borrowed_tcp; }
bool is_memory(SourceKind k) { return k == SourceKind::memory || k == SourceKind::mapped; }
bool is_stranded(SourceKind k) { return k == SourceKind::stranded_buffer || k == SourceKind::stranded_pipe; }

bool is_append(SinkKind k) { return k == SinkKind::file_append || k == SinkKind::borrowed_append; }
bool writes_file(SinkKind k) {  // with a position, the page cache of a disk file or of a memfd
  return k == SinkKind::file || k == SinkKind::file_range || k == SinkKind::memory_file || k == SinkKind::borrowed_file;
}
bool is_pipe(SinkKind k) { return k == SinkKind::pipe || k == SinkKind::borrowed_pipe; }
bool is_tcp(SinkKind k) { return k == SinkKind::tcp || k == SinkKind::borrowed_tcp; }
bool is_socket(SinkKind k) { return is_tcp(k) || k == SinkKind::unix_stream || k == SinkKind::borrowed_unix; }
bool is_memory(SinkKind k) { return k == SinkKind::memory || k == SinkKind::mapped; }

std::uint64_t asked(const Case& c, std::size_t available) { return std::min<std::uint64_t>(c.length, available); }

// ---- set-up ----

// What the sink's files hold before: not what the source holds.
std::span<const std::byte> old_content(std::size_t n) { return ends::pattern(std::size_t{5} << 20, n); }

// A file (or memfd) with the first `n` bytes of the pattern; each user opens it anew, for a position of its own.
int content_file(std::size_t n, bool in_memory) {
  static std::map<std::pair<std::size_t, bool>, zc::OwnedFd> files;
  auto& file = files[{n, in_memory}];
  if (!file) {
    if (in_memory) {
      file.reset(ends::checked(::memfd_create("content", MFD_CLOEXEC), "memfd_create"));
      ends::pwrite_all(file.get(), ends::pattern(0, n), 0);
    } else {
      file = ends::temporary_file(ends::pattern(0, n));
    }
  }
  return file.get();
}

// Bytes that left a socket and did not arrive, because the sink was full: in a buffer, or in a pipe.
zc::Stranded make_stranded(std::size_t n, Strategy strategy) {
  if (n == 0) return {};
  ends::FdPair from = ends::unix_pair();
  const int room = 4 << 20;
  ::setsockopt(from.other.get(), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
  ends::Feeder feeder(std::move(from.other), ends::pattern(0, n));
  const zc::OwnedFd full(ends::checked(::open("/dev/full", O_WRONLY | O_CLOEXEC), "open /dev/full"));
  std::error_code ec;
  zc::TransferResult r = zc::transfer(from.one, full, {.strategy = strategy}, ec);
  from.one.reset();
  if (!r.stranded || r.delivered != 0 || r.consumed != r.stranded->size() || r.consumed > n)
    throw std::runtime_error("a transfer of " + std::to_string(n) + " bytes from a socket to /dev/full by " +
                             std::string(to_string(strategy)) + " strands nothing: " + std::to_string(r.consumed) +
                             " consumed, " + ec.message());
  return std::move(*r.stranded);
}

}  // namespace

bool Source::is_file() const {
  return kind == SourceKind::file || kind == SourceKind::memory_file || kind == SourceKind::borrowed_file;
}
bool Source::is_stream() const { return is_pipe(kind) || is_socket(kind); }

Source::Source(const Case& c) : kind(c.source) {
  if (is_stranded(kind)) {
    stranded = make_stranded(c.size, kind == SourceKind::stranded_pipe ? Strategy::splice : Strategy::read_write);
    content = ends::pattern(0, static_cast<std::size_t>(stranded->size()));
    return;
  }
  if (is_stream()) {
    content = ends::pattern(0, c.size);
    ends::FdPair pair = is_pipe(kind) ? ends::pipe_pair() : is_tcp(kind) ? ends::tcp_pair() : ends::unix_pair();
    if (is_tcp(kind)) ends::reset_at_close(pair.one.get());
    fd = pair.one.get();
    ends::set_nonblocking(fd, !c.source_blocks);
    if (c.size <= 4097) {
      ends::write_all(pair.other.get(), content);
      pair.other.reset();
    } else {
      feeder = std::make_unique<ends::Feeder>(std::move(pair.other), content);
    }
    if (kind == SourceKind::pipe)
      pipe.emplace(std::move(pair.one));
    else if (kind == SourceKind::tcp || kind == SourceKind::unix_stream)
      socket.emplace(std::move(pair.one));
    else
      owned = std::move(pair.one);
    return;
  }
  content = ends::pattern(c.source_offset, c.size);
  if (kind == SourceKind::memory) return;
  start = c.source_offset;
  const bool whole = kind != SourceKind::file_range && kind != SourceKind::mapped;
  const std::size_t behind = !whole && c.sink_empty ? 100 : 0;  // bytes of the file that are not the source's
  const int at = content_file(c.source_offset + c.size + behind, kind == SourceKind::memory_file);
  owned = ends::reopened(at, O_RDONLY);
  fd = owned.get();
  if (whole) ::lseek(fd, static_cast<off_t>(start), SEEK_SET);
  switch (kind) {
    case SourceKind::file: file.emplace(std::move(owned)); break;
    case SourceKind::memory_file: memory_file.emplace(std::move(owned)); break;
    case SourceKind::file_range: range.emplace(owned.as_fd(), start, behind != 0 ? c.size : zc::to_end); break;
    case SourceKind::mapped:
      mapped = zc::MappedFile::map(zc::FileRange(owned.as_fd(), start, c.size));
      fd = -1;
      break;
    default: break;
  }
}

Sink::Sink(const Case& c) : kind(c.sink) {
  const auto expected = static_cast<std::size_t>(asked(c, c.size));
  if (is_pipe(kind) || is_socket(kind)) {
    ends::FdPair pair = is_pipe(kind) ? ends::pipe_pair() : is_tcp(kind) ? ends::tcp_pair() : ends::unix_pair();
    if (is_pipe(kind)) std::swap(pair.one, pair.other);  // the library writes
    if (c.small_buffer && is_socket(kind)) {
      const int bytes = is_tcp(kind) ? 131072 : 16384;  // less than two segments: 40 ms for each acknowledgement
      ::setsockopt(pair.one.get(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    }
    if (is_tcp(kind)) {
      ends::reset_at_close(pair.one.get());
      ends::reset_at_close(pair.other.get());
    }
    fd = pair.one.get();
    peer = std::move(pair.other);
    ends::set_nonblocking(fd, !c.sink_blocks);
    // These two wait until nobody reads the pages any more, whatever the size.
    const bool waits = c.strategy == Strategy::vmsplice || c.strategy == Strategy::send_zerocopy;
    if (expected > 4097 || waits) drainer = std::make_unique<ends::Drainer>(peer.get());
    if (kind == SinkKind::pipe)
      pipe.emplace(std::move(pair.one));
    else if (kind == SinkKind::tcp || kind == SinkKind::unix_stream)
      socket.emplace(std::move(pair.one));
    else
      owned = std::move(pair.one);
    return;
  }
  const bool roomy = !c.sink_empty || c.length != zc::to_end;
  room = expected + (roomy ? 50 : 0);
  if (kind == SinkKind::memory) {
    const auto old = old_content(room + 100);
    buffer.assign(old.begin(), old.end());
    before = buffer;
    return;
  }
  const bool filled = !c.sink_empty || kind == SinkKind::mapped;
  const auto old = old_content(is_append(kind) ? 33 : filled ? c.sink_offset + room + 100 : 0);
  before.assign(old.begin(), old.end());
  start = is_append(kind) ? before.size() : c.sink_offset;
  if (kind == SinkKind::memory_file) {
    owned.reset(ends::checked(::memfd_create("sink", MFD_CLOEXEC), "memfd_create"));
    ends::pwrite_all(owned.get(), before, 0);
  } else {
    owned = ends::temporary_file(before);
  }
  if (kind == SinkKind::file_append) owned = ends::reopened(owned.get(), O_RDWR | O_APPEND);
  if (kind == SinkKind::borrowed_append) ::fcntl(owned.get(), F_SETFL, O_APPEND);
  fd = owned.get();
  const bool positioned = kind == SinkKind::file_range || kind == SinkKind::mapped;
  if (!positioned && !is_append(kind)) ::lseek(fd, static_cast<off_t>(start), SEEK_SET);
  switch (kind) {
    case SinkKind::file:
    case SinkKind::file_append: file.emplace(std::move(owned)); break;
    case SinkKind::memory_file: memory_file.emplace(std::move(owned)); break;
    case SinkKind::file_range: range.emplace(owned.as_fd(), start, c.small_buffer ? room : zc::to_end); break;
    case SinkKind::mapped: mapped = zc::WritableMappedFile::map(zc::FileRange(owned.as_fd(), start, room)); break;
    default: break;
  }
}

namespace {

// ---- expectations ----

// Whether this machine's copy_file_range serves two files of /tmp.
bool copies_ranges() {
  static const bool can = [] {
    const zc::OwnedFd from = ends::temporary_file(ends::pattern(0, 10));
    const zc::OwnedFd to = ends::temporary_file();
    off_t in = 0;
    off_t out = 0;
    return ::copy_file_range(from.get(), &in, to.get(), &out, 10, 0) == 10;
  }();
  return can;
}

// Whether a forced strategy has to serve the pair: so that a library which refuses everything does not pass.
bool must_serve(const Case& c) {
  if (!c.strategy) return true;
  const bool from_disk = c.source != SourceKind::memory_file && reads_file(c.source);
  const bool to_disk = c.sink != SinkKind::memory_file && writes_file(c.sink);
  const bool to_fd = !is_memory(c.sink);
  switch (*c.strategy) {
    case Strategy::read_write: return !is_stranded(c.source) && !(is_memory(c.source) && is_memory(c.sink));
    case Strategy::sendfile:
      return reads_file(c.source) && (is_socket(c.sink) || (writes_file(c.sink) && c.sink != SinkKind::file_range));
    case Strategy::splice:
      return (reads_file(c.source) || is_pipe(c.source) || is_socket(c.source)) && to_fd && !is_append(c.sink);
    case Strategy::copy_file_range: return from_disk && to_disk && copies_ranges();
    case Strategy::mmap_write: return (reads_file(c.source) || c.source == SourceKind::mapped) && to_fd;
    case Strategy::vmsplice: return c.source == SourceKind::memory && is_pipe(c.sink);
    case Strategy::send_zerocopy: return is_memory(c.source) && is_tcp(c.sink);
    default: return false;
  }
}

std::string describe(const zc::TransferResult& r, const std::error_code& ec) {
  std::string s = "delivered " + std::to_string(r.delivered) + ", consumed " + std::to_string(r.consumed) + ", " +
                  std::string(to_string(r.reason)) + ", side " + std::string(to_string(r.side)) + ", error '" +
                  (ec ? ec.message() : std::string("none")) + "', strategy " +
                  (r.strategy ? std::string(to_string(*r.strategy)) : "none") + ", calls " + std::to_string(r.calls);
  if (r.stranded) s += ", stranded " + std::to_string(r.stranded->size());
  for (const zc::FallbackStep step : r.trail)
    s += " (" + std::string(to_string(step.strategy)) + ": " + step.error.message() + ")";
  return s;
}

// Collects what is wrong with one case.
class Checks {
 public:
  void that(bool holds, const char* what) {
    if (!holds) wrong_ += std::string(wrong_.empty() ? "" : "; ") + what;
  }
  [[nodiscard]] const std::string& wrong() const { return wrong_; }

 private:
  std::string wrong_;
};

void check_result(const Case& c, const Source& from, zc::TransferResult& r, const std::error_code& ec, Checks& check) {
  const std::uint64_t all = asked(c, from.content.size());
  const std::uint64_t held = r.stranded ? r.stranded->size() : 0;
  check.that(ec == r.error, "ec is not the result's error");
  check.that(r.consumed == r.delivered + held, "consumed is not delivered + stranded");
  // Nobody can say when a spliced page was read: vmsplice may be cautious. A send has its completion.
  check.that(!r.source_in_use || c.strategy == Strategy::vmsplice, "source_in_use without a time limit");
  check.that(!r.stranded || from.is_stream(), "stranded bytes of a source that can be rewound");
  if (!r.error) {
    const bool short_of = c.length != zc::to_end && c.length > from.content.size();
    check.that(r.delivered == all, "not all was delivered");
    check.that(r.reason == (short_of ? StopReason::end_of_source : StopReason::complete), "the wrong reason");
    check.that(r.side == zc::Side::none, "a side without an error");
    check.that(!r.stranded, "stranded bytes without an error");
    check.that(r.strategy.has_value() == (all != 0), "a strategy if and only if bytes moved");
    check.that(!c.strategy || !r.strategy || r.strategy == c.strategy, "another strategy than the forced one");
    check.that(all == 0 || r.calls != 0, "bytes moved without a call");
    check.that(c.length != 0 || r.calls == 0, "calls for length 0");
    check.that(!c.strategy || r.trail.empty(), "a trail beside a forced strategy that served");
  } else {
    check.that(c.strategy.has_value(), "an error without a forced strategy");
    check.that(r.reason == StopReason::failed && r.error == Errc::strategy_unavailable, "not strategy_unavailable");
    check.that(r.delivered == 0, "unavailable, but bytes were delivered");
    check.that(!r.strategy, "unavailable, but it names a strategy");
    bool named = false;
    for (const zc::FallbackStep step : r.trail)
      named = named || (step.strategy == c.strategy && static_cast<bool>(step.error));
    check.that(named, "unavailable, but the trail does not say why");
    check.that(all == 0 || !must_serve(c), "a pair that this strategy serves");
  }
}

// What left the source is in `delivered` and in `stranded`, the rest is still there.
void check_source(Source& from, zc::TransferResult& r, std::uint64_t position_before, Checks& check) {
  if (from.is_file())
    check.that(ends::position_of(from.fd) == from.start + r.delivered, "the source's position");
  else if (from.fd >= 0 && !from.is_stream())
    check.that(ends::position_of(from.fd) == position_before, "a FileRange source moved the position");
  if (from.stranded)
    check.that(from.stranded->size() == from.content.size() - r.delivered, "stranded did not shrink by delivered");
  if (!from.is_stream()) return;
  Bytes rest;
  if (r.stranded) {
    rest.resize(static_cast<std::size_t>(r.stranded->size()));
    std::error_code ec;
    const zc::TransferResult again = zc::transfer(*r.stranded, std::span(rest), {}, ec);
    check.that(!ec && again.delivered == rest.size(), "stranded bytes can't be delivered to memory");
  }
  const Bytes unread = ends::read_to_end(from.fd);
  rest.insert(rest.end(), unread.begin(), unread.end());
  check.that(ends::same(rest, from.content.subspan(std::min<std::size_t>(r.delivered, from.content.size()))),
             "what is stranded and left in the source is not what was not delivered");
}

void check_sink(Sink& to, std::span<const std::byte> arrived, std::uint64_t position_before, Checks& check) {
  if (to.peer) {
    if (to.pipe)
      to.pipe->close();
    else if (is_pipe(to.kind))
      to.owned.reset();
    else
      ::shutdown(to.fd, SHUT_WR);
    const Bytes got = to.drainer ? to.drainer->bytes() : ends::read_to_end(to.peer.get());
    check.that(ends::same(got, arrived), "what the reader got");
    return;
  }
  Bytes wanted = to.before;
  if (!arrived.empty() && wanted.size() < to.start + arrived.size()) wanted.resize(to.start + arrived.size());
  std::copy(arrived.begin(), arrived.end(),
            std::next(wanted.begin(), arrived.empty() ? 0 : static_cast<std::ptrdiff_t>(to.start)));
  if (to.kind == SinkKind::memory) {
    check.that(ends::same(to.buffer, wanted), "the memory");
    return;
  }
  check.that(ends::same(ends::pread_all(to.fd), wanted), "the file's content");
  if (to.kind == SinkKind::file_range || to.kind == SinkKind::mapped)
    check.that(ends::position_of(to.fd) == position_before, "the sink's position moved");
  else if (!is_append(to.kind))
    check.that(ends::position_of(to.fd) == to.start + arrived.size(), "the sink's position");
  else if (!arrived.empty())
    check.that(ends::position_of(to.fd) == to.start + arrived.size(), "the append sink's position");
}

// Ends the program when a case takes longer than any patience of a test's thread.
class Watchdog {
 public:
  static Watchdog& instance() {
    static Watchdog* one = new Watchdog;  // its thread is never joined
    return *one;
  }
  void begin(const Case& c) {
    const std::lock_guard hold(lock_);
    current_ = &c;
    since_ = ends::Clock::now();
  }
  void end() {
    const std::lock_guard hold(lock_);
    current_ = nullptr;
  }

 private:
  Watchdog() {
    std::thread([this] {
      for (;;) {
        std::this_thread::sleep_for(std::chrono::seconds(1));
        const std::lock_guard hold(lock_);
        if (current_ == nullptr || ends::Clock::now() - since_ < 3 * ends::patience) continue;
        std::cerr << "a transfer hangs: " << current_->text() << std::endl;
        std::abort();
      }
    }).detach();
  }
  std::mutex lock_;
  const Case* current_ = nullptr;
  ends::Clock::time_point since_{};
};

constexpr std::optional<Strategy> strategies[] = {
    std::nullopt,       Strategy::reflink,   Strategy::copy_file_range, Strategy::sendfile,
    Strategy::splice,   Strategy::vmsplice,  Strategy::mmap_write,      Strategy::send_zerocopy,
    Strategy::io_uring, Strategy::direct_io, Strategy::read_write};
constexpr std::size_t sizes[] = {0, 1, 4095, 4096, 4097, 65537, (std::size_t{3} << 20) + 7};
constexpr std::size_t source_offsets[] = {0, 1000, 4096};
constexpr std::size_t sink_offsets[] = {0, 4096, 33, 5000};

std::vector<std::uint64_t> lengths_for(std::size_t size) {
  std::vector<std::uint64_t> lengths{zc::to_end, size + 7};
  if (size >= 1) lengths.push_back(size - 1);
  if (size >= 4) lengths.push_back(size / 2);
  return lengths;
}

}  // namespace

void run(const Case& c, Move move, Report& report) {
  ++report.cases;
  Watchdog::instance().begin(c);
  try {
    Source from(c);
    Sink to(c);
    const bool shares = c.strategy == Strategy::vmsplice || c.strategy == Strategy::send_zerocopy;
    zc::Options options{.strategy = c.strategy, .length = c.length};
    if (shares) options.aliasing = zc::Aliasing::shared;
    const auto source_state = ends::FdState::of(from.fd);
    const auto sink_state = ends::FdState::of(to.fd);
    const auto signals = ends::SignalState::now();
    const std::uint64_t source_position = ends::position_of(from.fd);
    const std::uint64_t sink_position = ends::position_of(to.fd);

    std::error_code ec = std::make_error_code(std::errc::bad_message);
    zc::TransferResult r = move(from, to, options, ec);

    Checks check;
    const std::string result = describe(r, ec);
    check.that(signals == ends::SignalState::now(), "the signal mask or what is pending");
    check.that(source_state == ends::FdState::of(from.fd), "the source's flags or options");
    check.that(sink_state == ends::FdState::of(to.fd), "the sink's flags or options");
    check_result(c, from, r, ec, check);
    check_sink(to, from.content.first(std::min<std::size_t>(r.delivered, from.content.size())), sink_position, check);
    check_source(from, r, source_position, check);
    if (!check.wrong().empty()) report.failures.push_back(c.text() + "\n    " + check.wrong() + "\n    " + result);
    ++(r.error ? report.unavailable : report.moved);
  } catch (const std::exception& e) {
    report.failures.push_back(c.text() + "\n    thrown: " + e.what());
  }
  Watchdog::instance().end();
}

Report run(SourceKind source, Move move) {
  Report report;
  std::size_t turn = 0;
  const bool source_can_block = is_pipe(source) || is_socket(source);
  for (int k = 0; k < sink_kinds; ++k) {
    const auto sink = static_cast<SinkKind>(k);
    const bool sink_can_block = is_pipe(sink) || is_socket(sink);
    for (const auto& strategy : strategies) {
      for (const std::size_t size : sizes) {
        const std::vector<std::uint64_t> lengths = lengths_for(size);
        const bool large = size > 65537;
        for (std::size_t l = 0; l < lengths.size(); ++l) {
          if (large && l != turn++ % lengths.size() && l != 0) continue;
          for (const bool source_blocks : {false, true}) {
            for (const bool sink_blocks : {false, true}) {
              if ((source_blocks && !source_can_block) || (sink_blocks && !sink_can_block)) continue;
              ++turn;
              if (large && source_blocks != (turn % 3 == 0) && source_can_block) continue;
              run({.source = source,
                   .sink = sink,
                   .strategy = strategy,
                   .size = size,
                   .source_offset = source_offsets[turn % std::size(source_offsets)],
                   .sink_offset = sink_offsets[turn / 3 % std::size(sink_offsets)],
                   .length = lengths[l],
                   .source_blocks = source_blocks,
                   .sink_blocks = sink_blocks,
                   .sink_empty = turn / 5 % 2 == 0,
                   .small_buffer = turn / 7 % 2 == 0},
                  move, report);
            }
          }
        }
      }
    }
  }
  return report;
}

void require_all(SourceKind source, Move move) {
  Report report;
  std::ignore = content_file(0, false);
  ends::in_thread([&] { run({.source = source, .size = 1}, move, report); });  // what a process keeps once
  report = {};
  const auto began = ends::Clock::now();
  std::size_t before = 0;
  ends::in_thread([&] {
    for (const std::size_t size : sizes)  // the files with the content stay open
      for (const std::size_t offset : source_offsets)
        for (const std::size_t behind : {std::size_t{0}, std::size_t{100}}) {
          content_file(offset + size + behind, false);
          content_file(offset + size + behind, true);
        }
    before = ends::open_descriptors();
    report = run(source, move);
  });
  const std::size_t after = ends::open_descriptors();
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(ends::Clock::now() - began).count();
  std::cout << "matrix: " << name_of(source) << ": " << report.cases << " cases, " << report.moved << " moved, "
            << report.unavailable << " unavailable, " << report.failures.size() << " failed, " << took << " ms"
            << std::endl;
  std::string shown;
  for (std::size_t i = 0; i < std::min<std::size_t>(report.failures.size(), 12); ++i)
    shown += report.failures[i] + "\n";
  if (const char* log = std::getenv("ZEROCOPY_MATRIX_LOG")) {
    if (std::FILE* out = std::fopen(log, "a")) {
      for (const std::string& failure : report.failures) std::fprintf(out, "%s\n", failure.c_str());
      std::fclose(out);
    }
  }
  INFO(shown);
  CHECK(report.failures.size() == 0);
  CHECK(report.moved > 0);
  CHECK(after == before);
}

}  // namespace matrix

TEST_CASE("the matrix notices a lost byte, a doubled byte and a lie about the count", "[matrix]") {
  const matrix::Case c{.source = matrix::SourceKind::file, .sink = matrix::SinkKind::pipe, .size = 4096};
  const auto failures = [&](matrix::Move move) {
    matrix::Report report;
    matrix::run(c, move, report);
    return report.failures.size();
  };
  using From = matrix::Source;
  using To = matrix::Sink;
  const auto honest = [](From& from, To& to, const zerocopy::Options& options, std::error_code& ec) {
    return zerocopy::transfer(from.file->as_fd(), to.fd < 0 ? zerocopy::BorrowedFd(-1) : zerocopy::BorrowedFd(to.fd),
                              options, ec);
  };
  CHECK(failures(honest) == 0);
  CHECK(failures([](From& from, To& to, const zerocopy::Options& options, std::error_code& ec) {
          auto r = zerocopy::transfer(from.file->as_fd(), zerocopy::BorrowedFd(to.fd), options, ec);
          --r.delivered;
          return r;
        }) == 1);
  CHECK(failures([](From& from, To& to, const zerocopy::Options& options, std::error_code& ec) {
          auto r = zerocopy::transfer(from.file->as_fd(), zerocopy::BorrowedFd(to.fd), options, ec);
          ends::write_all(to.fd, ends::pattern(4095, 1));
          return r;
        }) == 1);
  CHECK(failures([](From& from, To&, const zerocopy::Options& options, std::error_code& ec) {
          std::array<std::byte, 4096> elsewhere{};
          return zerocopy::transfer(from.file->as_fd(), std::span(elsewhere), options, ec);
        }) == 1);
}
