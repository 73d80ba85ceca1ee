#include <zerocopy/explain.hpp>

#include "catch.hpp"
#include "support/process.hpp"

#include <fstream>
#include <map>

#if __has_include(<fmt/format.h>)
#define FMT_HEADER_ONLY
#include <zerocopy/format.hpp>
#endif

using namespace zerocopy;
using ends::tcp_pair;
using Steps = std::vector<std::pair<Strategy, std::error_code>>;

namespace {

constexpr std::size_t mebibyte = 1 << 20;

// A file on a disk where there is one: /var/tmp may be one where /tmp is a tmpfs.
File file_of(std::size_t bytes) { return File(ends::temporary_file(ends::pattern(0, bytes), "/var/tmp")); }
void move_to(const File& file, std::size_t position) {
  REQUIRE(::lseek(file.as_fd().get(), static_cast<off_t>(position), SEEK_SET) == static_cast<off_t>(position));
}
// Connected, and with room for a few MiB although nobody reads.
ends::FdPair roomy_pair(ends::FdPair pair) {
  const int room = 8 << 20;
  for (const int fd : {pair.one.get(), pair.other.get()}) {
    (void)::setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
    (void)::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
  }
  ends::set_nonblocking(pair.one.get(), true);
  return pair;
}
std::vector<Strategy> order(const Explanation& e) {
  std::vector<Strategy> all;
  for (const ExplainedStrategy& entry : e)
    if (entry.position) all.push_back(entry.strategy);
  return all;
}
// The trail that a transfer by this explanation must have: what its plan rules out but tells, then what is refused first.
Steps expected_trail(const Explanation& e) {
  Steps steps;
  for (const ExplainedStrategy& entry : e)
    if (entry.passed_over == Errc::would_block_uncut) steps.emplace_back(entry.strategy, entry.passed_over);
  for (const ExplainedStrategy& entry : e) {
    if (entry.strategy == e.chosen()) break;
    if (entry.refused) steps.emplace_back(entry.strategy, entry.refused);
  }
  return steps;
}
Steps steps_of(const TransferResult& r) {
  Steps steps;
  for (const FallbackStep step : r.trail) steps.emplace_back(step.strategy, step.error);
  return steps;
}

// Once in many thousand calls the kernel moves less than it could: then the same is done again.
template <class Source, class Sink>
TransferResult transfer_by(const Explanation& e, const Source& from, const Sink& to, const Options& options) {
  std::error_code ec;
  TransferResult r = transfer(from, to, options, ec);
  if constexpr (std::same_as<Source, File>) {
    for (int again = 0; again < 2 && !ec && r.calls > e.expected_calls(r.delivered); ++again) {
      WARN("again: " << r.calls << " calls for " << r.delivered << " bytes by " << to_string(*r.strategy));
      ends::checked(static_cast<int>(::lseek(from.as_fd().get(), -static_cast<off_t>(r.delivered), SEEK_CUR)), "lseek");
      r = transfer(from, to, options, ec);
    }
  }
  CAPTURE(ec.message());
  CHECK_FALSE(ec);
  return r;
}
// Explains, transfers, and compares: who moved the bytes, who was left, in how many calls.
template <class Source, class Sink>
TransferResult predicted(const Source& from, const Sink& to, const Options& options = {}) {
  const Explanation e = explain(from, to, options);
  CAPTURE(e.text());
  REQUIRE_FALSE(e.error);
  TransferResult r = transfer_by(e, from, to, options);
  CAPTURE(r.delivered);
  if (r.delivered > 0) CHECK(r.strategy == e.chosen());
  CHECK(steps_of(r) == expected_trail(e));
  CHECK(r.calls == e.expected_calls(r.delivered));
  return r;
}

constexpr Strategy every_strategy[] = {
    Strategy::reflink,    Strategy::copy_file_range, Strategy::sendfile, Strategy::splice,    Strategy::vmsplice,
    Strategy::mmap_write, Strategy::send_zerocopy,   Strategy::io_uring, Strategy::direct_io, Strategy::read_write};

}  // namespace

TEST_CASE("all ten strategies stand in an explanation, those in the order first", "[explain]") {
  const File file = file_of(4096);
  const auto sockets = tcp_pair();
  const Explanation e = explain(file, sockets.one);
  StrategySet seen;
  std::size_t tried = 0;
  for (const ExplainedStrategy& entry : e) {
    CAPTURE(to_string(entry.strategy));
    seen.insert(entry.strategy);
    CHECK(entry.position.has_value() == !entry.passed_over);
    if (entry.position) CHECK(*entry.position == tried++);
    if (!entry.serves) CHECK(entry.calls(mebibyte).switches == 0);
  }
  CHECK(seen == StrategySet::all());
  CHECK(tried == 4);
}

TEST_CASE("the classic table: read and write copies twice, mmap once, sendfile and splice never", "[explain]") {
  const File file = file_of(mebibyte);
  const auto sockets = tcp_pair();
  const Explanation e = explain(file, sockets.one);
  REQUIRE(e.route);
  CHECK(e.route->device == "lo");
  CHECK(e.route->is_loopback());
  CHECK(e[Strategy::read_write].cpu_copies == 2);
  CHECK(e[Strategy::mmap_write].cpu_copies == 1);
  const unsigned last_copy = e.route->scatter_gather.value_or(false) ? 0 : 1;
  CHECK(e[Strategy::sendfile].cpu_copies == last_copy);
  CHECK(e[Strategy::splice].cpu_copies == last_copy);
  CHECK(e[Strategy::send_zerocopy].cpu_copies == 1);  // loopback copies what it promised not to
  CHECK(e[Strategy::read_write].calls(mebibyte).moving == 8);
  CHECK(e[Strategy::read_write].calls(mebibyte).ending == 1);
  CHECK(e[Strategy::read_write].calls(mebibyte).switches == 18);
  CHECK(e[Strategy::sendfile].calls(mebibyte).switches == 6);  // its own 0, and the read that proves it
  CHECK(e[Strategy::sendfile].calls(0x7ffff000ULL * 3 + 1).moving == 4);
  CHECK(e[Strategy::splice].calls(to_end).moving > 1'000'000'000);  // by arithmetic, not by counting
  CHECK(e.bytes == mebibyte);

  const File in_memory(OwnedFd(::memfd_create("m", MFD_CLOEXEC)));
  const File copy = file_of(0);
  const Explanation inside = explain(in_memory, copy);
  CHECK(inside[Strategy::sendfile].cpu_copies == 1);  // into the sink's own pages
  CHECK(inside[Strategy::splice].cpu_copies == 1);
  CHECK(inside[Strategy::reflink].cpu_copies == 0);
  const Explanation to_memory = explain(in_memory, File(OwnedFd(::memfd_create("n", MFD_CLOEXEC))));
  CHECK(to_memory[Strategy::sendfile].dma_copies == 0);
  const auto local = ends::unix_pair();
  const Explanation near = explain(in_memory, local.one);
  CHECK_FALSE(near.route);
  CHECK(near[Strategy::sendfile].cpu_copies == 0);
}

TEST_CASE("an explanation moves and changes nothing", "[explain]") {
  const File file = file_of(10'000);
  move_to(file, 100);
  const File copy = file_of(10);
  move_to(copy, 7);
  const Pipe pipe = Pipe::create();
  REQUIRE(::write(pipe.writer().as_fd().get(), "abc", 3) == 3);
  const auto tcp = tcp_pair();
  const auto far = tcp_pair();
  REQUIRE(::write(far.other.get(), "xyz", 3) == 3);
  const std::string text = "memory";
  const auto bytes = ends::as_bytes(text);
  const auto states = [&] {
    return std::array{ends::FdState::of(tcp.one.get()), ends::FdState::of(far.one.get()),
                      ends::FdState::of(pipe.writer().as_fd().get()), ends::FdState::of(pipe.reader().as_fd().get())};
  };
  (void)explain(file, tcp.one);  // the pipe of this thread's pool, and the capabilities
  const auto before = states();
  const auto signals = ends::SignalState::now();
  const std::size_t open = ends::open_descriptors();
  for (const Strategy s : every_strategy) {
    for (const Options& o : {Options{}, Options{.strategy = s}, Options{.strategy = s, .aliasing = Aliasing::shared},
                             Options{.idle_timeout = std::chrono::milliseconds(1)}}) {
      (void)explain(file, copy, o);
      (void)explain(file, tcp.one, o);
      (void)explain(file, pipe.writer(), o);
      (void)explain(file.range(3), copy.range(2), o);
      (void)explain(pipe.reader(), tcp.one, o);
      (void)explain(far.one, tcp.one, o);
      (void)explain(far.one, copy, o);
      (void)explain(bytes, tcp.one, o);
      (void)explain(bytes, pipe.writer(), o);
      (void)explain(BorrowedFd(far.one.get()), BorrowedFd(copy.as_fd().get()), o);
    }
  }
  CHECK(states() == before);
  CHECK(ends::SignalState::now() == signals);
  CHECK(ends::open_descriptors() == open);
  CHECK(file.position() == 100);
  CHECK(copy.position() == 7);
  CHECK(copy.size() == 10);
  CHECK(ends::as_text(ends::read_now(pipe.reader().as_fd().get())) == "abc");
  CHECK(ends::as_text(ends::read_now(far.one.get())) == "xyz");
  CHECK(ends::read_now(tcp.other.get()).empty());
}

TEST_CASE("from a file to a file: order, mover and calls are those of the transfer", "[explain]") {
  for (const std::size_t size : {std::size_t{1}, std::size_t{4096}, 3 * mebibyte, 3 * mebibyte + 5}) {
    CAPTURE(size);
    const File file = file_of(size);
    const File copy = file_of(0);
    (void)predicted(file, copy);
    for (const Strategy s : {Strategy::copy_file_range, Strategy::sendfile, Strategy::splice, Strategy::mmap_write,
                             Strategy::read_write}) {
      CAPTURE(to_string(s));
      move_to(file, 0);
      CHECK(predicted(file, copy, {.strategy = s}).delivered == size);
      move_to(file, size / 3);  // inside a page: the pipe's first slot holds less
      (void)predicted(file, copy, {.strategy = s, .length = size - size / 3});
      move_to(file, 0);
      (void)predicted(file, copy, {.strategy = s, .chunk_size = 10'000});
    }
    (void)predicted(file.range(1), copy.range(0));
    (void)predicted(file.range(size / 2), copy.range(3), {.allow = {Strategy::splice}});
  }
}

TEST_CASE("bytes that start inside a page fill a slot of the pipe with less", "[explain]") {
  const File file = file_of(3 * mebibyte);
  const File copy = file_of(0);
  if (Capabilities::of_process().pipe_capacity != mebibyte) {
    WARN("skipped: no pipe of 1 MiB can be had here");
    return;
  }
  CHECK(predicted(file, copy, {.strategy = Strategy::splice, .length = 2 * mebibyte}).calls == 4);
  move_to(file, 5);
  CHECK(predicted(file, copy, {.strategy = Strategy::splice, .length = 2 * mebibyte}).calls == 6);
  CHECK(predicted(file.range(5), copy.range(0), {.strategy = Strategy::splice, .length = 2 * mebibyte}).calls == 6);
}

TEST_CASE("from a file to TCP: order, mover and calls are those of the transfer", "[explain]") {
  for (const std::size_t size : {std::size_t{1}, std::size_t{70'000}, 2 * mebibyte + 5}) {
    const File file = file_of(size);
    for (const Strategy s : {Strategy::sendfile, Strategy::splice, Strategy::mmap_write, Strategy::read_write}) {
      CAPTURE(size, to_string(s));
      const auto sockets = roomy_pair(tcp_pair());
      move_to(file, 0);
      CHECK(predicted(file, sockets.one, {.strategy = s}).delivered == size);
    }
    const auto sockets = roomy_pair(tcp_pair());
    move_to(file, 0);
    CHECK(predicted(file, sockets.one).strategy == Strategy::sendfile);
    const auto next = roomy_pair(tcp_pair());
    move_to(file, 0);
    CHECK(predicted(file, next.one, {.allow = {Strategy::splice, Strategy::read_write}}).strategy == Strategy::splice);
  }
}

TEST_CASE("a time limit makes calls small at first, and the explanation knows", "[explain]") {
  const File file = file_of(3 * mebibyte);
  const File copy = file_of(0);
  for (const Strategy s : {Strategy::sendfile, Strategy::mmap_write}) {
    move_to(file, 0);
    const Options limited{.strategy = s, .idle_timeout = std::chrono::hours(1)};
    CHECK(explain(file, copy, limited).expected_calls(3 * mebibyte) == 4);  // 256 KiB, 512 KiB, 1 MiB, the rest
    (void)transfer(file, copy, limited);
  }
  const auto sockets = roomy_pair(tcp_pair());
  CHECK(explain(file, sockets.one, {.idle_timeout = std::chrono::hours(1)}).expected_calls(std::uint64_t{1} << 40) ==
        6 + 65535 + 1);  // 256 KiB to 8 MiB come to 16 MiB less 256 KiB, then 16 MiB each
}

TEST_CASE("into a blocking socket under a deadline calls are kept short", "[explain]") {
  const File file = file_of(200'000);
  auto sockets = tcp_pair();
  sockets = roomy_pair(std::move(sockets));
  ends::set_nonblocking(sockets.one.get(), false);
  const Options options{.deadline = ends::Clock::now() + std::chrono::seconds(20)};
  const auto before = ends::FdState::of(sockets.one.get());
  const Explanation e = explain(file, sockets.one, options);
  CHECK(ends::FdState::of(sockets.one.get()) == before);
  CHECK(e[Strategy::splice].calls(200'000).moving == 1 + 4);
  CHECK(e[Strategy::mmap_write].calls(200'000).moving == 1);
  CHECK(predicted(file, sockets.one, options).calls == 4);  // 64 KiB each
  ends::set_nonblocking(sockets.one.get(), true);
  CHECK(explain(file, sockets.one, options).expected_calls(200'000) == 1);
}

TEST_CASE("where more follows sendfile leaves the last bytes to another", "[explain]") {
  for (const std::size_t size : {std::size_t{1000}, std::size_t{300'000}}) {
    CAPTURE(size);
    const File file = file_of(size);
    const auto sockets = roomy_pair(tcp_pair());
    const Options options{.more = true};
    const Explanation e = explain(file, sockets.one, options);
    CAPTURE(e.text());
    const TransferResult r = transfer(file, sockets.one, options);
    CHECK(r.delivered == size);
    CHECK(r.calls == e.expected_calls(size));
    CHECK(e.bytes == size);
    if (size == 1000) {
      CHECK(e[Strategy::sendfile].passed_over == Errc::cannot_promise_more);
      CHECK(r.strategy == e.chosen());
    } else {
      CHECK(e.chosen() == Strategy::sendfile);  // and what stands next moves the last byte
      CHECK(r.strategy == order(e)[1]);
    }
  }
}

TEST_CASE("between sockets and pipes splice moves the bytes", "[explain]") {
  SECTION("socket to socket") {
    const auto in = tcp_pair();
    const auto out = roomy_pair(tcp_pair());
    REQUIRE(ends::write_all(in.other.get(), ends::pattern(0, 1000)));
    CHECK(predicted(in.one, out.one, {.length = 1000}).delivered == 1000);
    REQUIRE(ends::write_all(in.other.get(), ends::pattern(0, 1000)));
    CHECK(predicted(in.one, out.one, {.strategy = Strategy::read_write, .length = 1000}).calls == 2);
  }
  SECTION("file to pipe") {
    const File file = file_of(40'000);
    for (const Strategy s : {Strategy::splice, Strategy::mmap_write, Strategy::read_write}) {
      const Pipe pipe = Pipe::create();
      move_to(file, 0);
      CHECK(predicted(file, pipe.writer(), {.strategy = s}).delivered == 40'000);
    }
  }
  SECTION("pipe to socket, pipe to pipe") {
    const Pipe one = Pipe::create();
    const Pipe two = Pipe::create();
    const auto out = roomy_pair(tcp_pair());
    (void)transfer(ends::pattern(0, 30'000), one.writer());
    CHECK(predicted(one.reader(), two.writer(), {.length = 30'000}).calls == 1);
    CHECK(predicted(two.reader(), out.one, {.length = 30'000}).calls == 1);
    CHECK(explain(one.reader(), out.one)[Strategy::read_write].cpu_copies == 2);
    CHECK(explain(one.reader(), two.writer())[Strategy::splice].cpu_copies == 0);
  }
}

TEST_CASE("memory is shared only if the caller says so, and from 16 KiB", "[explain]") {
  const auto sockets = roomy_pair(tcp_pair());
  const auto many = ends::pattern(0, 100'000);
  Explanation e = explain(many, sockets.one);
  CHECK(order(e) == std::vector{Strategy::read_write});
  CHECK(e[Strategy::send_zerocopy].passed_over == Errc::snapshot_needed);
  CHECK(e.source.kind == "memory");
  CHECK(e.source.fd == -1);
  CHECK(predicted(many, sockets.one).calls == 1);
  e = explain(ends::pattern(0, 1000), sockets.one, {.aliasing = Aliasing::shared});
  CHECK(e[Strategy::send_zerocopy].passed_over == Errc::not_worth_it);
  e = explain(many, sockets.one, {.aliasing = Aliasing::shared});
  CHECK(order(e) == std::vector{Strategy::send_zerocopy, Strategy::read_write});
  CHECK(e[Strategy::vmsplice].passed_over == Errc::only_when_forced);

  Pipe pipe = Pipe::create({.capacity = 1 << 20});
  for (const std::size_t start : {std::size_t{0}, std::size_t{100}}) {
    const auto some = ends::pattern(start, 200'000);
    CHECK(predicted(some, pipe.writer(), {.aliasing = Aliasing::shared}).strategy == Strategy::vmsplice);
    CHECK(ends::read_now(pipe.reader().as_fd().get()).size() == some.size());
  }
  std::array<std::byte, 64> room{};
  const Explanation inside = explain(many.first(64), std::span(room));
  CHECK(inside[Strategy::read_write].calls(64).moving == 1);
  CHECK(inside[Strategy::read_write].calls(64).switches == 0);
  CHECK(predicted(many.first(64), std::span(room)).calls == 1);
}

TEST_CASE("what a file sink in append mode or on another file system refuses is known before", "[explain]") {
  const File file = file_of(1000);
  const File in_memory(OwnedFd(::memfd_create("m", MFD_CLOEXEC)));
  struct statfs disk;
  REQUIRE(::fstatfs(file.as_fd().get(), &disk) == 0);
  if (disk.f_type == 0x01021994) {
    WARN("skipped: /var/tmp is a tmpfs here, so there is no second file system");
  } else {
    const Explanation e = explain(file, in_memory);
    CHECK(e[Strategy::copy_file_range].refused == std::errc::cross_device_link);
    CHECK(predicted(file, in_memory).strategy == Strategy::sendfile);
    move_to(file, 0);
  }
  const File log = file_of(10);
  const OwnedFd appended = ends::reopened(log.as_fd().get(), O_WRONLY | O_APPEND);
  const Explanation e = explain(file, appended);
  CHECK(order(e).front() == Strategy::copy_file_range);  // a transfer tries it all the same
  CHECK(e.chosen() == Strategy::mmap_write);
  std::error_code ec;
  const TransferResult r = transfer(file, appended, ec);
  CHECK(r.delivered == 1000);
  CHECK(steps_of(r) == expected_trail(e));
}

TEST_CASE("a snapshot, a short list and a forced strategy strike others, each for its own reason", "[explain]") {
  const File file = file_of(1000);
  const auto sockets = roomy_pair(tcp_pair());
  Explanation e = explain(file, sockets.one, {.aliasing = Aliasing::snapshot});
  CHECK(e[Strategy::sendfile].passed_over == Errc::snapshot_needed);
  CHECK(predicted(file, sockets.one, {.aliasing = Aliasing::snapshot}).strategy == Strategy::mmap_write);
  move_to(file, 0);
  e = explain(file, sockets.one, {.allow = {Strategy::splice}});
  CHECK(e[Strategy::sendfile].passed_over == Errc::not_allowed);
  CHECK(e[Strategy::reflink].passed_over == Errc::not_for_this_pair);
  CHECK(order(e) == std::vector{Strategy::splice});
  e = explain(file, sockets.one, {.strategy = Strategy::splice});
  CHECK(e[Strategy::sendfile].passed_over == Errc::another_forced);
  CHECK(e[Strategy::io_uring].passed_over == Errc::not_for_this_pair);
  CHECK(explain(file, sockets.one)[Strategy::send_zerocopy].passed_over == Errc::only_when_forced);

  const File copy = file_of(0);
  CHECK(explain(file, copy)[Strategy::reflink].passed_over == Errc::only_when_forced);
  CHECK_FALSE(explain(file, copy, {.allow = StrategySet::all() - StrategySet{Strategy::read_write}})[Strategy::reflink]
                  .passed_over);

  const Options forced{.strategy = Strategy::sendfile, .aliasing = Aliasing::snapshot};
  e = explain(file, sockets.one, forced);
  std::error_code ec;
  const TransferResult r = transfer(file, sockets.one, forced, ec);
  CHECK(e.error == ec);
  CHECK(e.error == Errc::strategy_unavailable);
  CHECK(e[Strategy::sendfile].passed_over == r.trail[0].error);
  CHECK_FALSE(e.chosen());
  CHECK(e.expected_calls(1000) == 0);
}

TEST_CASE("a request that is not sound has the error of the transfer", "[explain]") {
  const File file = file_of(1000);
  const auto same_error = [](const auto& from, const auto& to, const Options& options = {}) {
    const Explanation e = explain(from, to, options);
    std::error_code ec;
    const TransferResult r = transfer(from, to, options, ec);
    CAPTURE(e.text());
    CHECK(ec);
    CHECK(e.error == ec);
    CHECK(e.side == r.side);
    CHECK_FALSE(e.chosen());
    for (const ExplainedStrategy& entry : e)
      if (!entry.position) CHECK(entry.passed_over);
    CHECK(e.text().find(ec.message()) != std::string::npos);
  };
  same_error(BorrowedFd(-1), file);
  same_error(file, BorrowedFd(-1));
  same_error(file, file);
  same_error(file.range(0, 100), file.range(50, 100));
  same_error(file.range(UINT64_MAX - 5, 3), file_of(0));
  const OwnedFd folder(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  same_error(folder, file);
  const File log = file_of(10);
  const OwnedFd appended = ends::reopened(log.as_fd().get(), O_WRONLY | O_APPEND);
  same_error(file, FileRange(appended.as_fd(), 0));
  same_error(file, file_of(0), {.deadline = ends::Clock::now() - std::chrono::seconds(1)});
  same_error(file, file_of(0), {.allow = {}});
  std::stop_source stopped;
  stopped.request_stop();
  same_error(file, file_of(0), {.stop = stopped.get_token()});

  const Explanation nothing = explain(file, file_of(0), {.length = 0});
  CHECK_FALSE(nothing.error);
  CHECK_FALSE(nothing.chosen());
  CHECK(nothing[Strategy::read_write].passed_over == Errc::nothing_to_move);
}

TEST_CASE("borrowed descriptors are explained as what they are", "[explain]") {
  const File file = file_of(5000);
  const File copy = file_of(0);
  const auto sockets = roomy_pair(tcp_pair());
  const Explanation e = explain(BorrowedFd(file.as_fd().get()), sockets.one);
  CHECK(e.source.kind == "file");
  CHECK(e.sink.kind == "socket");
  CHECK(e.sink.fd == sockets.one.get());
  CHECK(order(e) == order(explain(file, sockets.one)));
  (void)predicted(BorrowedFd(file.as_fd().get()), sockets.one);
  move_to(file, 10);
  (void)predicted(BorrowedFd(file.as_fd().get()), BorrowedFd(copy.as_fd().get()));
  const auto messages = ends::udp_pair();
  CHECK(explain(file, BorrowedFd(messages.one.get())).sink.kind == "message socket");
  move_to(file, 0);
  CHECK(predicted(file, BorrowedFd(messages.one.get()), {.length = 500}).calls == 2);
}

TEST_CASE("a FIFO takes PIPE_BUF a call, a message a call, a device what it is given", "[explain]") {
  const ends::TempDir dir;
  const std::string path = dir / "fifo";
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  const OwnedFd fifo(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  const File file = file_of(10'000);
  CHECK(predicted(file, fifo, {.strategy = Strategy::mmap_write}).calls == 3);
  move_to(file, 0);
  CHECK(predicted(file, fifo, {.strategy = Strategy::read_write}).calls == 1 + 3);
  move_to(file, 0);
  CHECK(predicted(file, fifo, {.strategy = Strategy::splice}).calls == 1);

  const File null = File::open("/dev/null", {.access = Access::write});
  move_to(file, 0);
  CHECK(predicted(file, null).strategy == Strategy::read_write);
  CHECK(explain(file, null).sink.kind == "device");
  CHECK(explain(file, null)[Strategy::sendfile].passed_over == Errc::only_when_forced);

  const auto messages = ends::unix_pair(SOCK_SEQPACKET);
  REQUIRE(::send(messages.other.get(), "abc", 3, 0) == 3);
  const File copy = file_of(0);
  CHECK(predicted(messages.one, copy, {.length = 3}).calls == 2);
  CHECK(predicted(ends::pattern(0, 500), messages.one).calls == 1);
}

TEST_CASE("a memfd that can't change keeps the shared ways under snapshot", "[explain]") {
  MemoryFile file = MemoryFile::create("sealed", 5000);
  const auto sockets = roomy_pair(tcp_pair());
  const Options snapshot{.aliasing = Aliasing::snapshot};
  CHECK(explain(file, sockets.one, snapshot).chosen() == Strategy::mmap_write);
  file.seal();
  CHECK(predicted(file, sockets.one, snapshot).strategy == Strategy::sendfile);
}

TEST_CASE("where no pipe can be made splice is refused, and the explanation says so first", "[explain]") {
  const std::string wrong = ends::in_child([] {
    ends::Wrong found;
    const auto in = tcp_pair();
    const File copy = file_of(0);
    (void)ends::write_all(in.other.get(), ends::pattern(0, 1000));
    (void)Capabilities::of_process();
    const int next = ends::checked(::dup(0), "dup");
    ::close(next);
    const rlimit no_more{static_cast<rlim_t>(next), static_cast<rlim_t>(next)};
    ends::checked(::setrlimit(RLIMIT_NOFILE, &no_more), "setrlimit");
    std::thread([&] {  // a thread whose pool is empty
      const Explanation e = explain(in.one, copy);
      found.unless(e[Strategy::splice].refused == std::errc::too_many_files_open, "splice is not refused");
      found.unless(e.chosen() == Strategy::read_write, "read_write is not chosen");
      std::error_code ec;
      const TransferResult r = transfer(in.one, copy, {.length = 1000}, ec);
      found.unless(r.strategy == e.chosen(), "another one moved the bytes");
      found.unless(steps_of(r) == expected_trail(e), "another trail");
    })
        .join();
    return found.text();
  });
  CHECK(wrong == "");
}

TEST_CASE("stranded bytes are explained and stay where they are", "[explain]") {
  Pipe in = Pipe::create();
  (void)transfer(ends::pattern(0, 5000), in.writer());
  const File full = File::open("/dev/full", {.access = Access::write});
  std::error_code ec;
  TransferResult r = transfer(in.reader(), full, {.length = 5000}, ec);
  REQUIRE(r.stranded);
  REQUIRE(r.stranded->size() == 5000);
  const File copy = file_of(0);
  const Explanation e = explain(*r.stranded, copy);
  CHECK(e.source.kind == "stranded bytes");
  CHECK(e.bytes == 5000);
  CHECK(r.stranded->size() == 5000);
  const TransferResult late = transfer(*r.stranded, copy);
  CHECK(late.delivered == 5000);
  CHECK(late.strategy == e.chosen());
  CHECK(late.calls == e.expected_calls(5000));
}

TEST_CASE("the text names what will run, what each way costs and what is passed over", "[explain]") {
  const File file = file_of(mebibyte);
  const auto sockets = tcp_pair();
  const Explanation e = explain(file, sockets.one);
  const std::string text = e.text();
  CAPTURE(text);
  CHECK(to_string(e) == text);
  CHECK(text.find("file (fd " + std::to_string(file.as_fd().get()) + ") to socket (fd " +
                  std::to_string(sockets.one.get()) + "), 1 MiB: by sendfile\n") == 0);
  CHECK(text.find("\n4  read_write                2") != std::string::npos);
  CHECK(text.find("         8 + 1        18\n") != std::string::npos);
  CHECK(text.find("never for this pair: reflink, copy_file_range") != std::string::npos);
  CHECK(text.find("leaves through lo: scatter-gather ") != std::string::npos);
  CHECK(text.back() == '\n');
#ifdef FMT_HEADER_ONLY
  CHECK(fmt::format("{}", e) == text);
#else
  WARN("skipped: no fmt here");
#endif
}

TEST_CASE("the route of a connection to an own address is the loopback, over IPv6 too", "[explain]") {
  CHECK_FALSE(detail::find_route(-1));
  CHECK_FALSE(detail::find_route(ends::unix_pair().one.get()));
  const OwnedFd alone(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  CHECK_FALSE(detail::find_route(alone.get()));
  std::error_code ec;
  const Listener listener = Listener::bind("::1", 0, ec);
  if (ec) {
    WARN("skipped: no ::1 here: " << ec.message());
    return;
  }
  const Socket socket = Socket::connect("::1", listener.port());
  const auto route = detail::find_route(socket.as_fd().get());
  REQUIRE(route);
  CHECK(route->device == "lo");
}

namespace {

bool run(const std::string& command) {
  return std::system(("PATH=$PATH:/sbin:/usr/sbin; { " + command + "; } >/dev/null 2>&1").c_str()) == 0;
}
// Switches scatter-gather of a device; false where that can't be.
bool set_scatter_gather(const char* device, bool on) {
  const OwnedFd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ethtool_value value{};
  value.cmd = ETHTOOL_SSG;
  value.data = on ? 1 : 0;
  ifreq request{};
  std::strcpy(request.ifr_name, device);
  request.ifr_data = reinterpret_cast<char*>(&value);
  return ::ioctl(any.get(), SIOCETHTOOL, &request) == 0;
}
// A process that waits, to name the network namespace that it was born in.
class Sleeper {
 public:
  Sleeper() : pid_(ends::checked(::fork(), "fork")) {
    if (pid_ != 0) return;
    ::alarm(30);
    ::pause();
    ::_exit(0);
  }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;
  ~Sleeper() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] std::string pid() const { return std::to_string(pid_); }

 private:
  pid_t pid_;
};

// What sendfile really does on a connection, beside what is said: pages that are shared show a later write.
void compare_with_truth(const sockaddr_in& address, int listener, bool gathers, ends::Wrong& found) {
  const std::string name = gathers ? "with scatter-gather: " : "without scatter-gather: ";
  found.unless(set_scatter_gather("near", gathers), name + "can't be set");
  const OwnedFd sender(ends::checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  ends::checked(::connect(sender.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), "connect");
  const OwnedFd receiver(ends::checked(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC), "accept"));
  const File file(ends::temporary_file(ends::as_bytes("old bytes"), "/var/tmp"));
  const Explanation e = explain(file, sender);
  found.unless(e.route && e.route->device == "near", name + "the route is not the device's");
  found.unless(e.route && e.route->scatter_gather == gathers, name + "ethtool says otherwise");
  found.unless(e[Strategy::sendfile].cpu_copies == (gathers ? 0 : 1), name + "copies of sendfile");
  found.unless(e[Strategy::splice].cpu_copies == (gathers ? 0 : 1), name + "copies of splice");
  found.unless(e[Strategy::mmap_write].cpu_copies == 1, name + "copies of mmap_write");
  found.unless(
      e.text().find(gathers ? "without a copy into packets" : "pages are copied into packets") != std::string::npos,
      name + e.text());
  (void)transfer(file, sender, {.strategy = Strategy::sendfile});
  ends::pwrite_all(file.as_fd().get(), ends::as_bytes("new"), 0);
  const std::string arrived = ends::as_text(ends::read_to_end(receiver.get(), 9));
  found.unless(arrived == (gathers ? "new bytes" : "old bytes"), name + "arrived: " + arrived);
  ends::reset_at_close(sender.get());
}

// Two network namespaces with a cable between them. Empty, or what is wrong, or why it was skipped.
std::string two_networks() {
  if (::unshare(CLONE_NEWNET) != 0) return "skipped: no network namespace can be made here";
  const Sleeper here;
  const OwnedFd this_network(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  ends::checked(::unshare(CLONE_NEWNET), "unshare");
  if (!run("ip link add far type veth peer name near && ip link set near netns " + here.pid() +
           " && ip addr add 192.0.2.2/24 dev far && ip link set far up"))
    return "skipped: no veth devices can be made here";
  const OwnedFd listener(ends::checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(0xc0000202);
  socklen_t size = sizeof(address);
  ends::checked(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), "bind");
  ends::checked(::listen(listener.get(), 2), "listen");
  ends::checked(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), "getsockname");
  ends::checked(::setns(this_network.get(), CLONE_NEWNET), "setns");
  ends::Wrong found;
  found.unless(run("ip link set lo up && ip addr add 192.0.2.1/24 dev near && ip link set near up"), "ip");
  compare_with_truth(address, listener.get(), true, found);
  compare_with_truth(address, listener.get(), false, found);

  const OwnedFd own(ends::checked(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
  address.sin_addr.s_addr = htonl(0xc0000201);  // an address of our own, on a device that is not lo
  ends::checked(::connect(own.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), "connect");
  const auto route = detail::find_route(own.get());
  found.unless(route && route->device == "lo", "the route to an own address is not lo");
  return found.text();
}

}  // namespace

TEST_CASE("a device that does not gather makes sendfile copy once more, and a later write shows it", "[explain]") {
  if (!ends::is_root()) {
    WARN("skipped: needs root, to make networks of its own");
    return;
  }
  const std::string wrong = ends::in_child(two_networks);
  if (wrong.find("skipped") == 0) {
    WARN(wrong);
  } else {
    CHECK(wrong == "");
  }
}

// ---- strace counts too ----

namespace {

// strace on this process for as long as it lives, and what it wrote.
class Strace {
 public:
  Strace() {
    const pid_t self = ::getpid();
    (void)::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    child_ = ends::checked(::fork(), "fork");
    if (child_ == 0) {
      ::alarm(30);
      const int null = ::open("/dev/null", O_WRONLY);
      ::dup2(null, 2);
      ::execlp("strace", "strace", "-o", path_.c_str(), "-p", std::to_string(self).c_str(), nullptr);
      ::_exit(127);
    }
    const auto until = ends::Clock::now() + ends::patience;
    while (!is_traced() && ends::Clock::now() < until && ::waitpid(child_, nullptr, WNOHANG) == 0)
      ::poll(nullptr, 0, 5);
    attached_ = is_traced();
  }
  Strace(const Strace&) = delete;
  Strace& operator=(const Strace&) = delete;
  ~Strace() { end(); }
  [[nodiscard]] bool attached() const { return attached_; }

  // A call that nobody else makes, to be found in the output.
  static void mark(int number) { (void)::lseek(-1, number, SEEK_SET); }

  // After `end`: how often each call stands between the marks `number` and `number` + 1.
  std::map<std::string, std::uint64_t> between(int number) const {
    std::map<std::string, std::uint64_t> calls;
    std::ifstream in(path_);
    bool inside = false;
    for (std::string line; std::getline(in, line);) {
      if (line.rfind("lseek(-1, " + std::to_string(number) + ",", 0) == 0) inside = true;
      if (line.rfind("lseek(-1, " + std::to_string(number + 1) + ",", 0) == 0) return calls;
      if (inside) ++calls[line.substr(0, line.find('('))];
    }
    return {};
  }
  void end() {
    if (child_ <= 0) return;
    ::kill(child_, SIGINT);
    ::waitpid(child_, nullptr, 0);
    child_ = -1;
  }

 private:
  static bool is_traced() {
    std::ifstream in("/proc/self/status");
    for (std::string line; std::getline(in, line);)
      if (line.rfind("TracerPid:", 0) == 0) return std::atoi(line.c_str() + 10) != 0;
    return false;
  }

  ends::TempDir dir_;
  std::string path_ = dir_ / "trace";
  pid_t child_ = -1;
  bool attached_ = false;
};

}  // namespace

TEST_CASE("the calls that strace sees are those that were predicted, the end's too", "[explain]") {
  struct Run {
    Strategy strategy;
    std::uint64_t length;
    ExpectedCalls expected;
    std::uint64_t counted;
  };
  std::vector<Run> runs;
  const File files[] = {file_of(2 * mebibyte + 77), file_of(2 * mebibyte), file_of(0)};
  const File copy = file_of(0);
  const auto run = [&](const auto& from, const auto& to, const Options& options) {
    const Explanation e = explain(from, to, options);
    Strace::mark(static_cast<int>(2 * runs.size()) + 100);
    const TransferResult r = transfer(from, to, options);
    Strace::mark(static_cast<int>(2 * runs.size()) + 101);
    runs.push_back({*options.strategy, options.length, e[*options.strategy].calls(r.delivered), r.calls});
  };
  Strace strace;
  if (!strace.attached()) {
    WARN("skipped: no strace here, or it may not attach");
    return;
  }
  for (const Strategy s :
       {Strategy::copy_file_range, Strategy::sendfile, Strategy::splice, Strategy::mmap_write, Strategy::read_write}) {
    for (const File& file : files) {
      for (const std::uint64_t length : {to_end, 2 * mebibyte, 3 * mebibyte}) {
        move_to(file, 0);
        run(file, copy, {.strategy = s, .length = length});
        move_to(file, 0);
        run(file, copy, {.strategy = s, .length = length, .chunk_size = mebibyte / 2});
      }
    }
  }
  for (const Strategy s : {Strategy::splice, Strategy::read_write}) {  // what a socket says of its end is proved
    auto sockets = ends::unix_pair();
    REQUIRE(ends::write_all(sockets.other.get(), ends::pattern(0, 1000)));
    sockets.other.reset();
    run(sockets.one, copy, {.strategy = s});
  }
  strace.end();
  for (std::size_t i = 0; i < runs.size(); ++i) {
    auto seen = strace.between(static_cast<int>(2 * i) + 100);
    CAPTURE(to_string(runs[i].strategy), runs[i].length);
    std::uint64_t data = 0;
    for (const char* call :
         {"copy_file_range", "sendfile", "splice", "write", "pwrite64", "read", "pread64", "recvfrom"})
      data += seen[call];
    CHECK(data == runs[i].expected.moving + runs[i].expected.ending);
    CHECK(runs[i].counted == runs[i].expected.moving);
    CHECK(runs[i].expected.switches == 2 * data);
  }
}
