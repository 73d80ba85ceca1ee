// Several sources as one: every kind of part into every kind of sink, cut and broken in every part; the packets that it
// makes, the last byte that must not wait for a timer, and the cork that must be as it was.
#include "catch.hpp"
#include "support/process.hpp"

#include <zerocopy/gather.hpp>
#include <zerocopy/stepping.hpp>

#include <atomic>
#include <deque>
#include <memory>

namespace {

using namespace ends;
using zc::Errc;
using zc::gather;
using zc::Side;
using zc::StopReason;
using zc::Strategy;

// ---- parts ----

enum class Part { memory, file, range, mapped, memory_file, pipe, socket, any_file, any_pipe };
constexpr std::size_t lead = 37;  // bytes of a file before the part begins

// One source with `content`: the descriptors behind it, and what must be left in it.
class Source {
 public:
  Source(Part kind, std::span<const std::byte> content) : kind_(kind), content_(content) {
    switch (kind) {
      case Part::memory: break;
      case Part::memory_file: {
        zc::OwnedFd fd(checked(::memfd_create("part", MFD_CLOEXEC), "memfd_create"));
        fill(fd.get());
        memory_file_.emplace(std::move(fd));
        break;
      }
      case Part::pipe:
      case Part::any_pipe: {
        FdPair pair = pipe_pair();
        ::fcntl(pair.other.get(), F_SETPIPE_SZ, 1 << 20);
        if (!write_all(pair.other.get(), content)) throw std::runtime_error("a part does not fit into its pipe");
        fd_ = ::dup(pair.one.get());
        any_.reset(fd_);
        reader_.emplace(std::move(pair.one));
        break;
      }
      case Part::socket: {
        FdPair pair = unix_pair();
        fd_ = pair.one.get();
        socket_.emplace(std::move(pair.one));
        feeder_.emplace(std::move(pair.other), content);
        break;
      }
      default: {
        zc::OwnedFd fd = temporary_file();
        fill(fd.get());
        if (kind == Part::mapped)
          mapped_.emplace(zc::MappedFile::map(zc::FileRange(zc::BorrowedFd(fd.get()), lead, content.size())));
        any_.reset(::dup(fd.get()));
        file_.emplace(std::move(fd));
      }
    }
  }

  [[nodiscard]] std::size_t size() const { return content_.size(); }
  [[nodiscard]] std::span<const std::byte> memory() const { return content_; }
  [[nodiscard]] const zc::File& file() const { return *file_; }
  [[nodiscard]] zc::FileRange range() const { return file_->range(lead, size()); }
  [[nodiscard]] const zc::MappedFile& mapped() const { return *mapped_; }
  [[nodiscard]] const zc::MemoryFile& memory_file() const { return *memory_file_; }
  [[nodiscard]] const zc::PipeReader& pipe() const { return *reader_; }
  [[nodiscard]] const zc::Socket& socket() const { return *socket_; }
  [[nodiscard]] zc::BorrowedFd any() const { return zc::BorrowedFd(fd_); }

  // What is wrong after `n` bytes of it were consumed.
  std::string wrong_after(std::size_t n) {
    Wrong w;
    const std::size_t at = n + lead;
    if (kind_ == Part::file || kind_ == Part::memory_file || kind_ == Part::any_file)
      w.unless(position_of(fd_) == at, "position " + std::to_string(position_of(fd_)) + " not " + std::to_string(at));
    if (kind_ == Part::range) w.unless(position_of(fd_) == lead, "the position of a range moved");
    if (kind_ == Part::pipe || kind_ == Part::any_pipe)
      w.unless(same(read_now(fd_), content_.subspan(n)), "what is left in the pipe");
    if (kind_ == Part::socket) w.unless(same(read_to_end(fd_), content_.subspan(n)), "what is left in the socket");
    return w.text();
  }

 private:
  void fill(int fd) {
    fd_ = fd;
    pwrite_all(fd, pattern(0, lead), 0);
    pwrite_all(fd, content_, lead);
    ::lseek(fd, lead, SEEK_SET);
  }

  Part kind_;
  std::span<const std::byte> content_;
  int fd_ = -1;
  zc::OwnedFd any_;
  std::optional<zc::File> file_;
  std::optional<zc::MappedFile> mapped_;
  std::optional<zc::MemoryFile> memory_file_;
  std::optional<zc::PipeReader> reader_;
  std::optional<zc::Socket> socket_;
  std::optional<Feeder> feeder_;
};

// Parts of the given kinds and sizes, cut one after the other from the pattern.
class Sources {
 public:
  Sources(std::span<const Part> kinds, std::span<const std::size_t> sizes) {
    for (std::size_t i = 0; i < kinds.size(); ++i) {
      all_.emplace_back(kinds[i], pattern(total_ + 1, sizes[i]));
      total_ += sizes[i];
    }
  }
  Source& operator[](std::size_t i) { return all_[i]; }
  [[nodiscard]] std::size_t total() const { return total_; }
  [[nodiscard]] std::span<const std::byte> first(std::size_t n) const { return pattern(1, n); }
  // After `consumed` bytes have left all of them.
  std::string wrong_after(std::size_t consumed) {
    std::string wrong;
    for (std::size_t i = 0; i < all_.size(); ++i) {
      const std::size_t n = std::min(consumed, all_[i].size());
      const std::string part = all_[i].wrong_after(n);
      if (!part.empty()) wrong += "part " + std::to_string(i) + ": " + part;
      consumed -= n;
    }
    return wrong;
  }

 private:
  std::deque<Source> all_;
  std::size_t total_ = 0;
};

constexpr Part forwards[] = {Part::memory,      Part::file, Part::range,  Part::mapped,
                             Part::memory_file, Part::pipe, Part::socket, Part::any_file};
auto gather_forwards(Sources& s) {
  return gather(s[0].memory(), s[1].file(), s[2].range(), s[3].mapped(), s[4].memory_file(), s[5].pipe(), s[6].socket(),
                s[7].any());
}
constexpr Part backwards[] = {Part::any_pipe, Part::socket, Part::pipe, Part::memory_file,
                              Part::mapped,   Part::range,  Part::file, Part::memory};
auto gather_backwards(Sources& s) {
  return gather(s[0].any(), s[1].socket(), s[2].pipe(), s[3].memory_file(), s[4].mapped(), s[5].range(), s[6].file(),
                s[7].memory());
}

// ---- sinks ----

enum class Sink { tcp, unix_stream, pipe, file, range, memory, any_tcp };
constexpr Sink every_sink[] = {Sink::tcp,   Sink::unix_stream, Sink::pipe,   Sink::file,
                               Sink::range, Sink::memory,      Sink::any_tcp};

constexpr bool is_bounded(Sink kind) { return kind == Sink::range || kind == Sink::memory; }

// Moves `parts` into a sink of this kind, which is read while it happens; `got` is what arrived.
template <class Parts>
zc::TransferResult move_into(Sink kind, const Parts& parts, const zc::Options& options, Bytes& got,
                             std::size_t room = 4 << 20) {
  std::error_code ec;
  zc::TransferResult r;
  switch (kind) {
    case Sink::tcp:
    case Sink::any_tcp:
    case Sink::unix_stream: {
      FdPair pair = kind == Sink::unix_stream ? unix_pair() : tcp_pair();
      const int fd = pair.one.get();
      set_nonblocking(fd, true);
      const FdState before = FdState::of(fd);
      Drainer drainer(pair.other.get());
      {
        zc::Socket sink(std::move(pair.one));
        r = kind == Sink::any_tcp ? zc::transfer(parts, sink.as_fd(), options, ec)
                                  : zc::transfer(parts, sink, options, ec);
        CHECK(before == FdState::of(fd));
      }
      got = drainer.bytes();
      break;
    }
    case Sink::pipe: {
      FdPair pair = pipe_pair();
      Drainer drainer(pair.one.get());
      {
        const zc::PipeWriter sink(std::move(pair.other));
        r = zc::transfer(parts, sink, options, ec);
      }
      got = drainer.bytes();
      break;
    }
    case Sink::file: {
      const zc::File sink(temporary_file(pattern(7, 5)));
      ::lseek(sink.as_fd().get(), 5, SEEK_SET);
      r = zc::transfer(parts, sink, options, ec);
      CHECK(position_of(sink.as_fd().get()) == 5 + r.delivered);
      const Bytes whole = pread_all(sink.as_fd().get());
      CHECK(same(pattern(7, 5), std::span(whole).first(5)));
      got = pread_all(sink.as_fd().get(), 5);
      break;
    }
    case Sink::range: {
      const zc::File sink(temporary_file(pattern(7, 5)));
      r = zc::transfer(parts, sink.range(5, room), options, ec);
      CHECK(position_of(sink.as_fd().get()) == 0);
      got = pread_all(sink.as_fd().get(), 5);
      break;
    }
    case Sink::memory: {
      Bytes memory(room);
      r = zc::transfer(parts, std::span(memory), options, ec);
      for (std::size_t i = r.delivered; i < memory.size(); ++i) {
        if (memory[i] != std::byte{0}) FAIL("written past what was delivered, at " << i);
      }
      memory.resize(r.delivered);
      got = std::move(memory);
      break;
    }
  }
  CHECK(ec == r.error);
  return r;
}

std::uint64_t left_over(const zc::TransferResult& r) { return r.stranded ? r.stranded->size() : 0; }

// Nothing went wrong: `n` bytes of the sources arrived, nothing else happened to them.
void check_whole(Sources& sources, const zc::TransferResult& r, const Bytes& got, std::size_t n, StopReason reason) {
  CHECK(r.error == std::error_code());
  CHECK(to_string(r.reason) == to_string(reason));
  CHECK(r.delivered == n);
  CHECK(r.consumed == n);
  CHECK(left_over(r) == 0);
  CHECK(same(got, sources.first(n)));
  CHECK(sources.wrong_after(n) == "");
}

template <std::size_t N, class Make>
void check_cuts(const Part (&kinds)[N], Make make) {
  const std::size_t sizes[3][8] = {{100, 70001, 4096, 5000, 33, 60000, 100000, 1},
                                   {0, 5, 66000, 0, 131072, 0, 3, 0},
                                   {65536, 0, 65537, 9, 300000, 65535, 0, 12345}};
  for (const Sink sink : every_sink) {
    for (const auto& s : sizes) {
      std::size_t all = 0;
      for (const std::size_t size : s) all += size;
      std::vector<std::uint64_t> lengths{zc::to_end, 0, all, all + 7};
      for (std::size_t i = 0, at = 0; i < N; at += s[i++]) {
        if (s[i] == 0) continue;
        lengths.insert(lengths.end(), {at + (s[i] + 1) / 2, at + s[i]});
      }
      for (const std::uint64_t length : lengths) {
        INFO("sink " << static_cast<int>(sink) << ", sizes " << s[0] << "..., length " << length);
        Sources sources(kinds, s);
        Bytes got;
        const zc::TransferResult r = move_into(sink, make(sources), {.length = length}, got);
        check_whole(sources, r, got, std::min<std::uint64_t>(length, all),
                    length == all + 7 ? StopReason::end_of_source : StopReason::complete);
      }
    }
  }
}

}  // namespace

TEST_CASE("eight parts of every kind into every sink, cut inside each part, empty ones among them", "[gather]") {
  const TimeLimit limit;
  check_cuts(forwards, gather_forwards);
}
TEST_CASE("the same parts the other way round", "[gather]") {
  const TimeLimit limit;
  check_cuts(backwards, gather_backwards);
}

TEST_CASE("one to eight descriptors of any kind", "[gather]") {
  const TimeLimit limit;
  constexpr Part kinds[] = {Part::any_file, Part::any_pipe, Part::socket,   Part::memory_file,
                            Part::pipe,     Part::file,     Part::any_file, Part::any_pipe};
  const auto run = [&]<std::size_t... I>(std::index_sequence<I...>, std::size_t turn) {
    constexpr std::size_t n = sizeof...(I);
    const Part turned[n] = {kinds[(I + turn) % 8]...};
    const std::size_t sizes[n] = {((I * 7919 + turn * 104729) % 5 == 0 ? 0 : (I * 7919 + turn * 104729) % 100000)...};
    for (const Sink sink : every_sink) {
      INFO(n << " parts, turn " << turn << ", sink " << static_cast<int>(sink));
      Sources sources(turned, sizes);
      Bytes got;
      const zc::TransferResult r = move_into(sink, gather(sources[I].any()...), {}, got);
      check_whole(sources, r, got, sources.total(), StopReason::complete);
    }
  };
  for (std::size_t turn = 0; turn < 4; ++turn) {
    run(std::make_index_sequence<1>(), turn);
    run(std::make_index_sequence<2>(), turn);
    run(std::make_index_sequence<3>(), turn);
    run(std::make_index_sequence<4>(), turn);
    run(std::make_index_sequence<5>(), turn);
    run(std::make_index_sequence<6>(), turn);
    run(std::make_index_sequence<7>(), turn);
    run(std::make_index_sequence<8>(), turn);
  }
}

TEST_CASE("a sink that is full takes what it holds; where a length or a range asked for more it is an error",
          "[gather]") {
  const std::size_t sizes[] = {100, 70001, 4096, 5000, 33, 60000, 100000, 1};
  for (const Sink sink : {Sink::range, Sink::memory}) {
    for (const std::size_t room : {std::size_t{1}, std::size_t{100}, std::size_t{50000}, std::size_t{75000},
                                   std::size_t{110000}, std::size_t{200000}}) {
      for (const bool asked : {false, true}) {
        INFO("sink " << static_cast<int>(sink) << ", room " << room << ", asked " << asked);
        Sources sources(forwards, sizes);
        Bytes got;
        const auto r = move_into(sink, gather_forwards(sources), {.length = asked ? 230000 : zc::to_end}, got, room);
        CHECK(r.delivered == room);
        CHECK(r.consumed == room);
        CHECK(same(got, sources.first(room)));
        CHECK(sources.wrong_after(room) == "");
        const std::size_t end_of_range = sizes[0] + sizes[1] + sizes[2];
        CHECK((r.error == Errc::sink_full) == (asked || room < end_of_range));
        CHECK((r.reason == StopReason::complete) == !r.error);
      }
    }
  }
}

// ---- parts that fail ----

namespace {

// Ends a part's promise in its middle, or before the first byte.
struct Broken {
  const char* what;
  std::error_code error;  // none: end_of_source
  std::size_t there;      // bytes of it that arrive
  bool before_first;      // nothing moves at all
};

std::error_code errno_code(int error) { return {error, std::system_category()}; }

// Five parts, the broken one at `at`, the others good; `use` gets the gather.
template <class Bad, class Use>
void with_broken_at(std::size_t at, const Bad& bad, Sources& s, Use use) {
  switch (at) {
    case 0: return use(gather(bad, s[0].memory(), s[1].file(), s[2].pipe(), s[3].memory()));
    case 1: return use(gather(s[0].memory(), bad, s[1].file(), s[2].pipe(), s[3].memory()));
    case 2: return use(gather(s[0].memory(), s[1].file(), bad, s[2].pipe(), s[3].memory()));
    case 3: return use(gather(s[0].memory(), s[1].file(), s[2].pipe(), bad, s[3].memory()));
    default: return use(gather(s[0].memory(), s[1].file(), s[2].pipe(), s[3].memory(), bad));
  }
}
constexpr Part good[] = {Part::memory, Part::file, Part::pipe, Part::memory};
constexpr std::size_t good_sizes[] = {100, 70000, 5000, 100};

template <class Bad>
void check_broken(const Broken& broken, const Bad& bad, std::span<const std::byte> content) {
  for (const Sink sink : {Sink::tcp, Sink::unix_stream, Sink::pipe, Sink::file, Sink::range, Sink::memory}) {
    for (std::size_t at = 0; at < 5; ++at) {
      INFO(broken.what << " at " << at << ", sink " << static_cast<int>(sink));
      Sources sources(good, good_sizes);
      std::size_t before = 0;
      for (std::size_t i = 0; i < at && !broken.before_first; ++i) before += good_sizes[i];
      Bytes got;
      zc::TransferResult r;
      with_broken_at(at, bad, sources, [&](const auto& parts) { r = move_into(sink, parts, {}, got); });
      CHECK(r.error == broken.error);
      CHECK(to_string(r.reason) == to_string(broken.error ? r.reason : StopReason::end_of_source));
      if (broken.error) CHECK(to_string(r.side) == "source");
      CHECK(r.delivered == before + broken.there);
      CHECK(r.consumed == r.delivered);
      CHECK(left_over(r) == 0);
      Bytes wanted(sources.first(before).begin(), sources.first(before).end());
      wanted.insert(wanted.end(), content.begin(), content.begin() + static_cast<std::ptrdiff_t>(broken.there));
      CHECK(same(got, wanted));
      CHECK(sources.wrong_after(before) == "");
    }
  }
}

}  // namespace

TEST_CASE("a part that can't be a source: nothing moves, wherever it stands", "[gather]") {
  const TimeLimit limit;
  check_broken({"no descriptor", errno_code(EBADF), 0, true}, zc::BorrowedFd(-1), {});
  const zc::OwnedFd closed_before(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  check_broken({"a closed descriptor", errno_code(EBADF), 0, true}, zc::BorrowedFd(19999), {});
  const zc::OwnedFd directory(checked(::open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open"));
  check_broken({"a directory", errno_code(EISDIR), 0, true}, zc::BorrowedFd(directory.get()), {});
  const zc::FileRange past_all(zc::BorrowedFd(closed_before.get()), std::uint64_t{1} << 63U, 1);
  check_broken({"an offset that overflows", make_error_code(Errc::offset_overflow), 0, true}, past_all, {});
}

TEST_CASE("a part that fails when its turn comes: what stood before it has arrived", "[gather]") {
  const TimeLimit limit;
  const zc::OwnedFd file = temporary_file(pattern(500, 3000));
  const zc::OwnedFd write_only = reopened(file.get(), O_WRONLY);
  check_broken({"a file that can't be read", errno_code(EBADF), 0, false}, zc::BorrowedFd(write_only.get()), {});
  check_broken({"a range of it", errno_code(EBADF), 0, false}, zc::FileRange(zc::BorrowedFd(write_only.get()), 0), {});
  const zc::FileRange longer(zc::BorrowedFd(file.get()), 1000, 5000);
  check_broken({"a range longer than its file", {}, 2000, false}, longer, pattern(1500, 2000));
  const zc::FileRange past(zc::BorrowedFd(file.get()), 3001, 10);
  check_broken({"a range past the end", {}, 0, false}, past, {});
  const zc::OwnedFd cut = temporary_file(pattern(500, 90000));
  const zc::MappedFile mapped = zc::MappedFile::map(zc::FileRange(zc::BorrowedFd(cut.get()), 0, 90000));
  checked(::ftruncate(cut.get(), 20480), "ftruncate");
  check_broken({"a mapping of a truncated file", make_error_code(Errc::source_truncated), 20480, false}, mapped,
               pattern(500, 20480));
}

TEST_CASE("a file that becomes shorter in its part: truncated, at the byte where it ended", "[gather]") {
  const TimeLimit limit;
  for (const bool range : {false, true}) {
    for (const std::size_t at : {std::size_t{0}, std::size_t{1}, std::size_t{2}}) {
      INFO("range " << range << ", part " << at);
      const zc::File file(temporary_file(pattern(101, 1 << 20)));
      FdPair pair = unix_pair();
      set_nonblocking(pair.one.get(), true);
      const auto head = pattern(1, 100);
      const auto run = [&](const auto& parts, std::size_t before) {
        zc::Transfer t(parts, pair.one, {.step_size = 4096});
        Bytes got;
        while (t.step() != zc::Step::done) {
          if (t.result().delivered > before) checked(::ftruncate(file.as_fd().get(), 300000), "ftruncate");
          const Bytes some = read_now(pair.other.get());
          got.insert(got.end(), some.begin(), some.end());
        }
        const zc::TransferResult r = t.finish();
        pair.one.reset();
        const Bytes rest = read_to_end(pair.other.get());
        got.insert(got.end(), rest.begin(), rest.end());
        CHECK(r.error == Errc::source_truncated);
        CHECK(to_string(r.reason) == "source_truncated");
        CHECK(r.delivered == before + 300000);
        CHECK(r.consumed == r.delivered);
        CHECK(got.size() == r.delivered);
        CHECK(same(std::span(got).subspan(before), pattern(101, 300000)));
        if (!range) CHECK(file.position() == 300000);
      };
      const zc::FileRange part = file.range(0, 1 << 20);
      if (at == 0) range ? run(gather(part, head, head), 0) : run(gather(file, head, head), 0);
      if (at == 1) range ? run(gather(head, part, head), 100) : run(gather(head, file, head), 100);
      if (at == 2) range ? run(gather(head, head, part), 200) : run(gather(head, head, file), 200);
    }
  }
}

// ---- sinks that stop, die or are slow ----

namespace {

constexpr std::size_t long_sizes[8] = {40000, 90000, 70000, 80000, 66000, 70000, 90000, 400000};

// A non-blocking socket with little room, and its peer. A pipe where `kind` says so.
FdPair narrow(Sink kind) {
  if (kind == Sink::pipe) {
    FdPair pair = pipe_pair();
    std::swap(pair.one, pair.other);
    ::fcntl(pair.one.get(), F_SETPIPE_SZ, 4096);
    set_nonblocking(pair.one.get(), true);
    return pair;
  }
  FdPair pair = kind == Sink::unix_stream ? unix_pair() : tcp_pair(4096);
  const int small = 4096;
  ::setsockopt(pair.one.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  set_nonblocking(pair.one.get(), true);
  return pair;
}

// What arrived, what is stranded and what the sources still hold are all bytes, in order.
void check_sum(Sources& sources, zc::TransferResult& r) {
  CHECK(r.consumed - r.delivered == left_over(r));
  if (r.stranded) {
    const zc::OwnedFd kept = temporary_file();
    CHECK(zc::transfer(*r.stranded, kept).delivered == r.consumed - r.delivered);
    CHECK(same(pread_all(kept.get()), sources.first(r.consumed).subspan(r.delivered)));
  }
  CHECK(sources.wrong_after(r.consumed) == "");
}

// Reads `n` bytes, or until the patience ends.
Bytes read_exactly(int fd, std::size_t n) { return read_to_end(fd, n); }

// The middle of each part of `sizes`.
std::vector<std::size_t> middles(std::span<const std::size_t> sizes) {
  std::vector<std::size_t> all;
  std::size_t at = 0;
  for (const std::size_t size : sizes) all.push_back(at + size / 2), at += size;
  return all;
}

template <std::size_t N, class Make>
void check_dying(const Part (&kinds)[N], Make make) {
  for (const Sink kind : {Sink::tcp, Sink::unix_stream, Sink::pipe}) {
    for (const std::size_t last : middles(long_sizes)) {
      INFO("sink " << static_cast<int>(kind) << " dies after " << last);
      Sources sources(kinds, long_sizes);
      FdPair pair = narrow(kind);
      if (kind == Sink::tcp) reset_at_close(pair.other.get());
      std::thread reader([&] {
        std::ignore = read_exactly(pair.other.get(), last);
        pair.other.reset();
      });
      std::error_code ec;
      zc::TransferResult r = zc::transfer(make(sources), pair.one, {}, ec);
      reader.join();
      CHECK(to_string(r.reason) == "sink_closed");
      CHECK(ec == Errc::sink_closed);
      CHECK(to_string(r.side) == "sink");
      CHECK(r.delivered >= last);
      CHECK(r.delivered < sources.total());
      check_sum(sources, r);
    }
  }
}
template <std::size_t N, class Make>
void check_deadline(const Part (&kinds)[N], Make make) {
  for (const Sink kind : {Sink::tcp, Sink::unix_stream, Sink::pipe}) {
    for (const std::size_t last : middles(long_sizes)) {
      INFO("sink " << static_cast<int>(kind) << " is read up to " << last);
      Sources sources(kinds, long_sizes);
      FdPair pair = narrow(kind);
      Bytes got;
      std::thread reader([&] { got = read_exactly(pair.other.get(), last); });
      std::error_code ec;
      const auto deadline = Clock::now() + 150ms;
      zc::TransferResult r = zc::transfer(make(sources), pair.one, {.deadline = deadline}, ec);
      const auto late = Clock::now() - deadline;
      reader.join();
      CHECK(to_string(r.reason) == "timed_out");
      CHECK(ec == std::errc::timed_out);
      CHECK(late < 100ms);
      CHECK(r.delivered < sources.total());
      pair.one.reset();
      const Bytes rest = read_to_end(pair.other.get());
      got.insert(got.end(), rest.begin(), rest.end());
      CHECK(same(got, sources.first(r.delivered)));
      check_sum(sources, r);
    }
  }
}

}  // namespace

TEST_CASE("a sink that dies in each part: what left its source and did not arrive is stranded", "[gather]") {
  const TimeLimit limit;
  check_dying(forwards, gather_forwards);
  check_dying(backwards, gather_backwards);
}

TEST_CASE("a sink that stops in each part, with a deadline: exactly what was delivered arrives", "[gather]") {
  const TimeLimit limit;
  check_deadline(forwards, gather_forwards);
  check_deadline(backwards, gather_backwards);
}

TEST_CASE("a gather in steps against a slow reader ends as transfer() does", "[gather]") {
  const TimeLimit limit;
  for (const Sink kind : {Sink::tcp, Sink::unix_stream, Sink::pipe}) {
    for (const std::uint64_t length :
         {zc::to_end, std::uint64_t{0}, std::uint64_t{40000}, std::uint64_t{250000}, std::uint64_t{600000}}) {
      INFO("sink " << static_cast<int>(kind) << ", length " << length);
      Sources twin(forwards, long_sizes);
      Sources sources(forwards, long_sizes);
      FdPair whole = narrow(kind);
      FdPair stepped = narrow(kind);
      Drainer drainer(whole.other.get());
      const zc::TransferResult a = zc::transfer(gather_forwards(twin), whole.one, {.length = length});
      whole.one.reset();

      zc::Transfer t(gather_forwards(sources), stepped.one, {.length = length, .step_size = 10000});
      const FdState before = FdState::of(stepped.one.get());
      Bytes got;
      std::array<std::byte, 5000> some;
      std::uint64_t last = 0;
      for (int turns = 0; t.step() != zc::Step::done; ++turns) {
        REQUIRE(turns < 100000);
        REQUIRE(t.result().delivered >= last);
        REQUIRE(t.result().delivered - last <= 10000 + 65536);
        last = t.result().delivered;
        if (!wait_for(stepped.other.get(), POLLIN, Clock::now() + 1ms)) continue;
        const ssize_t n = ::read(stepped.other.get(), some.data(), some.size());
        if (n > 0) got.insert(got.end(), some.begin(), some.begin() + n);
      }
      const zc::TransferResult b = t.finish();
      CHECK(before == FdState::of(stepped.one.get()));
      stepped.one.reset();
      const Bytes rest = read_to_end(stepped.other.get());
      got.insert(got.end(), rest.begin(), rest.end());
      CHECK(a.delivered == b.delivered);
      CHECK(a.consumed == b.consumed);
      CHECK(to_string(a.reason) == to_string(b.reason));
      CHECK(a.error == b.error);
      CHECK(to_string(a.side) == to_string(b.side));
      CHECK(a.strategy == b.strategy);
      CHECK(a.trail.size() == b.trail.size());
      CHECK(left_over(a) == left_over(b));
      CHECK(same(got, drainer.bytes()));
      CHECK(same(got, sources.first(b.delivered)));
      CHECK(sources.wrong_after(b.consumed) == "");
      CHECK(twin.wrong_after(a.consumed) == "");
    }
  }
}

TEST_CASE("a Transfer of a gather that is given up in each part hands out what is in flight", "[gather]") {
  const TimeLimit limit;
  for (const Sink kind : {Sink::tcp, Sink::unix_stream, Sink::pipe}) {
    for (const std::size_t last : middles(long_sizes)) {
      INFO("sink " << static_cast<int>(kind) << ", given up after " << last);
      Sources sources(backwards, long_sizes);
      FdPair pair = narrow(kind);
      zc::Transfer t(gather_backwards(sources), pair.one, {.step_size = 4096});
      Bytes got;
      const auto until = Clock::now() + patience;
      while (t.result().delivered < last && Clock::now() < until && t.step() != zc::Step::done) {
        const Bytes some = read_now(pair.other.get());
        got.insert(got.end(), some.begin(), some.end());
      }
      zc::TransferResult r = t.finish();
      CHECK(to_string(r.reason) == "would_block");
      CHECK(r.delivered >= last);
      pair.one.reset();
      const Bytes rest = read_to_end(pair.other.get());
      got.insert(got.end(), rest.begin(), rest.end());
      CHECK(same(got, sources.first(r.delivered)));
      check_sum(sources, r);
    }
  }
}

// ---- progress ----

TEST_CASE("progress over a gather counts all parts, against a total that is known or not", "[gather]") {
  const TimeLimit limit;
  for (const bool known : {true, false}) {
    for (const std::uint64_t length : {zc::to_end, std::uint64_t{300000}}) {
      for (const Sink kind : every_sink) {
        INFO("known " << known << ", length " << length << ", sink " << static_cast<int>(kind));
        constexpr Part kinds[] = {Part::memory, Part::file, Part::pipe, Part::range, Part::mapped};
        const std::size_t sizes[] = {100, 400000, known ? 0U : 50000U, 300000, 70000};
        Sources s(kinds, sizes);
        std::vector<zc::ProgressReport> heard;
        auto hear = [&](const zc::ProgressReport& report) { heard.push_back(report); };
        const zc::Options options{.length = length, .on_progress = {hear, 0ns}, .chunk_size = 32768};
        Bytes got;
        const zc::TransferResult r =
            known ? move_into(kind, gather(s[0].memory(), s[1].file(), s[3].range(), s[4].mapped()), options, got)
                  : move_into(kind, gather(s[0].memory(), s[1].file(), s[2].pipe(), s[3].range(), s[4].mapped()),
                              options, got);
        const std::uint64_t all = std::min<std::uint64_t>(s.total(), length);
        CHECK(r.delivered == all);
        CHECK(same(got, s.first(all)));
        REQUIRE(heard.size() > 3);
        std::uint64_t last = 0;
        for (const zc::ProgressReport& report : heard) {
          CHECK(report.bytes >= last);
          last = report.bytes;
          if (known) CHECK(report.total == all);
          // Memory holds 4 MiB at the most; a pipe does not say what it holds.
          if (!known && length != zc::to_end) CHECK(report.total == length);
          if (!known && length == zc::to_end && !is_bounded(kind)) CHECK(report.total == std::nullopt);
        }
        CHECK(heard.back().bytes == all);
      }
    }
  }
}

TEST_CASE("the total of a gather is that of its ranges, of the length, of what the sink holds", "[gather]") {
  const zc::File file(temporary_file(pattern(1, 100000)));
  std::optional<std::uint64_t> total;
  auto hear = [&](const zc::ProgressReport& report) { total = report.total; };
  const auto total_of = [&](const auto& parts, std::size_t room, std::uint64_t length) {
    Bytes memory(room);
    std::error_code ec;
    total.reset();
    std::ignore = zc::transfer(parts, std::span(memory), {.length = length, .on_progress = {hear, 0ns}}, ec);
    return total;
  };
  const auto head = pattern(1, 100);
  CHECK(total_of(gather(head, file.range(10, 500), head), 5000, zc::to_end) == 700);
  CHECK(total_of(gather(head, file.range(99900), head), 5000, zc::to_end) == 300);
  CHECK(total_of(gather(head, file.range(10, 500), head), 5000, 650) == 650);
  CHECK(total_of(gather(head, head), 150, zc::to_end) == 150);
  const auto huge = file.range(0, INT64_MAX);
  CHECK(total_of(gather(huge, huge, huge), 5000, zc::to_end) == 5000);
}

// ---- packets, tails, corks ----

namespace {

// tcpi_data_segs_out (Linux 4.6): <netinet/tcp.h> ends its tcp_info before it, and <linux/tcp.h> can't be included beside.
unsigned segments_out(int fd) {
  std::array<std::byte, 256> info{};
  socklen_t size = info.size();
  checked(::getsockopt(fd, IPPROTO_TCP, TCP_INFO, info.data(), &size), "TCP_INFO");
  REQUIRE(size >= 160);
  unsigned count = 0;
  std::memcpy(&count, info.data() + 156, sizeof count);
  return count;
}

// Loopback with segments of about 1000 bytes, and a window that has grown: what is sent then goes at once.
FdPair small_segments(bool no_delay) {
  const int segment = 1000;
  zc::OwnedFd listener(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  ::setsockopt(listener.get(), IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  checked(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), "bind");
  checked(::listen(listener.get(), 1), "listen");
  checked(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), "getsockname");
  FdPair pair;
  pair.one.reset(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  ::setsockopt(pair.one.get(), IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
  checked(::connect(pair.one.get(), reinterpret_cast<sockaddr*>(&address), size), "connect");
  pair.other.reset(checked(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept"));
  const int on = 1;
  ::setsockopt(pair.one.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  for (int i = 0; i < 8; ++i) {
    Drainer drainer(pair.other.get(), 500000);
    REQUIRE(write_all(pair.one.get(), pattern(0, 500000)));
    REQUIRE(drainer.bytes().size() == 500000);
  }
  if (!no_delay) {
    const int off = 0;
    ::setsockopt(pair.one.get(), IPPROTO_TCP, TCP_NODELAY, &off, sizeof off);
  }
  return pair;
}

void set_cork(int fd, int on) { ::setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on); }

// Segments that `send` needs for `n` bytes, which arrive whole.
template <class Send>
unsigned segments_of(bool no_delay, std::size_t n, std::span<const std::byte> wanted, Send send) {
  FdPair pair = small_segments(no_delay);
  set_nonblocking(pair.one.get(), true);
  const unsigned before = segments_out(pair.one.get());
  Drainer drainer(pair.other.get(), n);
  send(pair.one);
  CHECK(same(drainer.bytes(), wanted));
  return segments_out(pair.one.get()) - before;
}

// Reads in a thread of its own and knows when the last byte came.
class Clocked {
 public:
  Clocked(int fd, std::size_t n)
      : thread_([this, fd, n] {
          std::array<std::byte, 65536> block;
          const auto until = Clock::now() + 2s;
          while (got_ < n && wait_for(fd, POLLIN, until)) {
            const ssize_t some = ::read(fd, block.data(), block.size());
            if (some <= 0) break;
            got_ += static_cast<std::size_t>(some);
            last_ = Clock::now();
          }
        }) {}
  Clocked(const Clocked&) = delete;
  Clocked& operator=(const Clocked&) = delete;
  ~Clocked() { join(); }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] std::size_t got() const { return got_; }
  [[nodiscard]] Clock::time_point last() const { return last_; }

 private:
  std::size_t got_ = 0;
  Clock::time_point last_{};
  std::thread thread_;
};

constexpr auto prompt = 50ms;  // a tail that a timer sends takes 200

// After `move(socket)` has returned, its `delivered` bytes are at the reader in 50 ms, and the socket is as it was.
template <class Move>
void check_prompt(std::size_t expected, Move move) {
  for (const bool no_delay : {false, true}) {
    for (const bool blocking : {false, true}) {
      INFO("no_delay " << no_delay << ", blocking " << blocking);
      FdPair pair = tcp_pair();
      const int on = no_delay ? 1 : 0;
      ::setsockopt(pair.one.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      set_nonblocking(pair.one.get(), !blocking);
      const FdState before = FdState::of(pair.one.get());
      Clocked reader(pair.other.get(), expected);
      const zc::TransferResult r = move(pair.one);
      const auto end = Clock::now();
      CHECK(before == FdState::of(pair.one.get()));
      reader.join();
      CHECK(r.delivered == expected);
      CHECK(reader.got() == expected);
      CHECK(reader.last() < end + prompt);
      // With the caller's cork on, it is still on afterwards.
      set_cork(pair.one.get(), 1);
      const FdState corked = FdState::of(pair.one.get());
      Clocked again(pair.other.get(), expected);
      CHECK(move(pair.one).delivered == expected);
      CHECK(corked == FdState::of(pair.one.get()));
      CHECK(option_of(pair.one.get(), IPPROTO_TCP, TCP_CORK) == 1);
      set_cork(pair.one.get(), 0);
      again.join();
      CHECK(again.got() == expected);
    }
  }
}

const auto header = [] { return pattern(3000000, 100); };
const auto trailer = [] { return pattern(3000100, 100); };

}  // namespace

TEST_CASE("no 200 ms tail: whole, cut by a length, at a part that fails, ends early or stays silent", "[gather]") {
  const TimeLimit limit(120);
  const zc::OwnedFd bad = reopened(temporary_file().get(), O_WRONLY);
  for (const std::size_t n : {std::size_t{0}, std::size_t{1000}, std::size_t{65536}, std::size_t{200001}}) {
    const zc::File file(temporary_file(pattern(0, n)));
    const auto part = file.range(0, n);
    std::error_code ec;
    INFO("a file of " << n);
    check_prompt(n + 200, [&](const auto& to) { return zc::transfer(gather(header(), part, trailer()), to, ec); });
    check_prompt(n + 100, [&](const auto& to) { return zc::transfer(gather(header(), part), to, ec); });
    check_prompt(n + 100, [&](const auto& to) { return zc::transfer(gather(part, trailer()), to, ec); });
    const std::span<const std::byte> nothing;
    check_prompt(n + 100, [&](const auto& to) { return zc::transfer(gather(header(), part, nothing), to, ec); });
    check_prompt(n + 100, [&](const auto& to) {
      return zc::transfer(gather(nothing, header(), nothing, part, nothing, nothing), to, ec);
    });
    for (const std::uint64_t length : {std::uint64_t{50}, std::uint64_t{100}, n + 99, n + 100, n + 150, n + 900}) {
      INFO("length " << length);
      check_prompt(std::min<std::size_t>(length, n + 200), [&](const auto& to) {
        return zc::transfer(gather(header(), part, trailer()), to, {.length = length}, ec);
      });
    }
    check_prompt(n + 100, [&](const auto& to) {
      return zc::transfer(gather(header(), part, zc::BorrowedFd(bad.get()), trailer()), to, ec);
    });
    check_prompt(100, [&](const auto& to) {
      return zc::transfer(gather(header(), zc::BorrowedFd(bad.get()), trailer()), to, ec);
    });
    check_prompt(n + 100, [&](const auto& to) {
      return zc::transfer(gather(header(), file.range(0, n + 1), trailer()), to, ec);
    });
    const FdPair silent = pipe_pair();
    const zc::PipeReader waits(zc::OwnedFd(::dup(silent.one.get())));
    check_prompt(n + 100, [&](const auto& to) {
      return zc::transfer(gather(header(), part, waits, trailer()), to, {.deadline = Clock::now() + 20ms}, ec);
    });
    check_prompt(n + 100, [&](const auto& to) {
      return zc::transfer(gather(header(), part, waits, trailer()), to, {.idle_timeout = 20ms}, ec);
    });
    check_prompt(n + 100, [&](const auto& to) {
      std::stop_source stop;
      std::jthread later([&] { std::this_thread::sleep_for(20ms), stop.request_stop(); });
      return zc::transfer(gather(header(), part, waits, trailer()), to, {.stop = stop.get_token()}, ec);
    });
    check_prompt(n + 100, [&](const auto& to) {
      zc::Transfer t(gather(header(), part, waits, trailer()), to);
      while (t.result().delivered < n + 100 || t.step() == zc::Step::progressed) {
        if (t.step() == zc::Step::blocked && t.events() == POLLOUT) wait_for(t.fd(), POLLOUT, Clock::now() + 1s);
      }
      return t.finish();
    });
    if (n == 0) continue;  // a promise that nothing follows: the caller's own tail
    check_prompt(n + 100, [&](const auto& to) {
      zc::TransferResult first = zc::transfer(header(), to, {.more = true}, ec);
      first.delivered += zc::transfer(part, to, ec).delivered;
      return first;
    });
  }
}

TEST_CASE("what fits into one segment leaves as one", "[gather]") {
  const TimeLimit limit;
  const zc::File file(temporary_file(pattern(0, 700)));
  Bytes wanted(header().begin(), header().end());
  wanted.insert(wanted.end(), pattern(0, 700).begin(), pattern(0, 700).end());
  wanted.insert(wanted.end(), trailer().begin(), trailer().end());
  const zc::MappedFile mapped = zc::MappedFile::map(file);
  for (const bool no_delay : {false, true}) {
    const auto count = [&](auto send) { return segments_of(no_delay, wanted.size(), wanted, send); };
    INFO("no_delay " << no_delay);
    CHECK(count([&](const auto& to) { (void)zc::transfer(gather(header(), file.range(0), trailer()), to); }) == 1);
    CHECK(count([&](const auto& to) { (void)zc::transfer(gather(header(), mapped, trailer()), to); }) == 1);
    CHECK(count([&](const auto& to) {
            (void)zc::transfer(header(), to, {.more = true});
            (void)zc::transfer(file.range(0), to, {.more = true});
            (void)zc::transfer(trailer(), to);
          }) == 1);
    CHECK(count([&](const auto& to) {
            zc::Transfer t(gather(header(), file.range(0), trailer()), to);
            while (t.step() != zc::Step::done) wait_for(t.fd(), t.events(), Clock::now() + 1s);
          }) == 1);
    for (const Strategy s : {Strategy::splice, Strategy::mmap_write, Strategy::read_write}) {
      INFO(to_string(s));
      const zc::Options only{.allow = {s, Strategy::read_write}};
      CHECK(count([&](const auto& to) { (void)zc::transfer(gather(header(), file.range(0), trailer()), to, only); }) ==
            1);
    }
  }
}

TEST_CASE("a gather under the caller's cork makes no more segments than one write under it", "[gather]") {
  const TimeLimit limit;
  for (const std::size_t n : {std::size_t{3000}, std::size_t{65537}, std::size_t{300000}}) {
    const zc::File file(temporary_file(pattern(0, n)));
    Bytes wanted(header().begin(), header().end());
    wanted.insert(wanted.end(), pattern(0, n).begin(), pattern(0, n).end());
    wanted.insert(wanted.end(), trailer().begin(), trailer().end());
    for (const bool no_delay : {false, true}) {
      INFO(n << " bytes, no_delay " << no_delay);
      const auto corked = [&](auto move) {
        return segments_of(no_delay, wanted.size(), wanted, [&](const auto& to) {
          set_cork(to.get(), 1);
          move(to);
          set_cork(to.get(), 0);
        });
      };
      const unsigned one = corked([&](const auto& to) { REQUIRE(write_all(to.get(), wanted)); });
      CHECK(corked([&](const auto& to) { (void)zc::transfer(gather(header(), file.range(0), trailer()), to); }) <= one);
    }
  }
}

// Fails now: MSG_MORE and SPLICE_F_MORE hold a partial packet only until the next acknowledgement, which on the loopback
// comes at once where full segments went out before it.
TEST_CASE("a gather of any size makes no more segments than one corked write", "[gather][!mayfail]") {
  const TimeLimit limit;
  for (const std::size_t n : {std::size_t{3000}, std::size_t{65536}, std::size_t{65537}, std::size_t{300000}}) {
    const zc::File file(temporary_file(pattern(0, n)));
    Bytes wanted(header().begin(), header().end());
    wanted.insert(wanted.end(), pattern(0, n).begin(), pattern(0, n).end());
    wanted.insert(wanted.end(), trailer().begin(), trailer().end());
    for (const bool no_delay : {false, true}) {
      INFO(n << " bytes, no_delay " << no_delay);
      const auto count = [&](auto move) { return segments_of(no_delay, wanted.size(), wanted, move); };
      const unsigned one = count([&](const auto& to) {
        set_cork(to.get(), 1);
        CHECK(write_all(to.get(), wanted));
        set_cork(to.get(), 0);
      });
      CHECK(count([&](const auto& to) { (void)zc::transfer(gather(header(), file.range(0), trailer()), to); }) <= one);
      CHECK(count([&](const auto& to) {
              (void)zc::transfer(header(), to, {.more = true});
              (void)zc::transfer(file.range(0), to, {.more = true});
              (void)zc::transfer(trailer(), to);
            }) <= one);
    }
  }
}

// Fails now: the plan hands the last 64 KiB over to a next strategy that is not there.
TEST_CASE("sendfile alone allowed or forced serves a gather too, though it can't promise", "[gather][!mayfail]") {
  const TimeLimit limit;
  for (const std::size_t n : {std::size_t{100}, std::size_t{65536}, std::size_t{65537}, std::size_t{300000}}) {
    for (const bool forced : {false, true}) {
      for (const bool single : {false, true}) {
        INFO(n << " bytes, forced " << forced << ", single " << single);
        const zc::File file(temporary_file(pattern(0, n)));
        FdPair pair = tcp_pair();
        set_nonblocking(pair.one.get(), true);
        Drainer drainer(pair.other.get());
        zc::Options options{.allow = {Strategy::sendfile}, .more = single};
        if (forced) options = {.strategy = Strategy::sendfile, .more = single};
        std::error_code ec;
        const zc::TransferResult r = single ? zc::transfer(file, pair.one, options, ec)
                                            : zc::transfer(gather(file, file.range(0)), pair.one, options, ec);
        CHECK(ec == std::error_code());
        CHECK(r.delivered == (single ? n : 2 * n));
        CHECK(r.strategy == Strategy::sendfile);
        for (const zc::FallbackStep step : r.trail) CHECK(to_string(step.strategy) != "unknown");
        pair.one.reset();
        CHECK(drainer.bytes().size() == (single ? n : 2 * n));
      }
    }
  }
}
