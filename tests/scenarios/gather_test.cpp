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
constexpr Part every_part[] = {Part::memory, Part::file,   Part::range,    Part::mapped,  Part::memory_file,
                               Part::pipe,   Part::socket, Part::any_file, Part::any_pipe};
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
