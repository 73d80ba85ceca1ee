// Edges that a review found: one file at both ends, ends that are not what their type says, gathers, ttys, forks.
#include "catch.hpp"

#include "support/process.hpp"

#include <zerocopy/zerocopy.hpp>

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>

using namespace zerocopy;
using namespace std::chrono_literals;

namespace {

std::span<const std::byte> bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string pattern(std::size_t n) {
  std::string text(n, '\0');
  for (std::size_t i = 0; i < n; ++i) text[i] = static_cast<char>('a' + (i * 7 + i / 251) % 26);
  return text;
}
File filled(const std::string& text) {
  File file = File::temporary();
  (void)transfer(bytes(text), file);
  file.seek(0);
  return file;
}
std::string content(const File& file) {
  std::string text(file.size(), '\0');
  REQUIRE(::pread(file.as_fd().get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
  return text;
}
auto in(std::chrono::nanoseconds time) { return std::chrono::steady_clock::now() + time; }

// Runs `f` in a child; empty if it returns 0.
template <class F>
std::string wrong_in_child(F f) {
  return ends::in_child([&] {
    const int result = f();
    return result == 0 ? std::string() : "returned " + std::to_string(result);
  });
}

// A FIFO without a name, opened at both ends.
struct Fifo {
  Fifo() {
    char name[] = "/tmp/zerocopy-fifo-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    const std::string path = std::string(name) + "/fifo";
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    reader.reset(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    writer.reset(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    ::unlink(path.c_str());
    ::rmdir(name);
    REQUIRE((reader && writer));
  }
  OwnedFd reader;
  OwnedFd writer;
};

}  // namespace

TEST_CASE("overlapping ranges of one file are refused, with a length, in chunks, under a deadline, forced", "[edges]") {
  const std::string text = pattern(1 << 20);
  const File file = filled(text);
  const FileRange from = file.range(0, 1 << 20);
  const FileRange to = file.range(300'000);
  for (const Options& options :
       {Options{}, Options{.length = 1 << 20}, Options{.length = 1 << 20, .chunk_size = 4096},
        Options{.length = 1 << 20, .deadline = in(20s)}, Options{.strategy = Strategy::copy_file_range},
        Options{.strategy = Strategy::read_write, .length = 1 << 20}}) {
    std::error_code ec;
    const TransferResult r = transfer(from, to, options, ec);
    CHECK(ec == std::errc::invalid_argument);
    CHECK(r.delivered == 0);
  }
  CHECK((content(file) == text));
}

TEST_CASE("a copy behind itself in one file that hits the file-size limit says so", "[edges]") {
  const std::string wrong = wrong_in_child([] {
    const File file = filled(pattern(500'000));
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{600'000, 600'000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    std::error_code ec;
    const TransferResult r = transfer(file.range(0, 300'000), file.range(500'000), {.length = 300'000}, ec);
    return r.delivered == 100'000 && ec == std::errc::file_too_large ? 0 : 1;
  });
  CHECK(wrong == "");
}

TEST_CASE("a shared mapping and its own file are one file", "[edges]") {
  const std::string text = pattern(100'000);
  const File file = filled(text);
  std::error_code ec;
  CHECK(transfer(MappedFile::map(file.range(0, 50'000)), file.range(30'000), ec).delivered == 0);
  CHECK(ec == std::errc::invalid_argument);
  const WritableMappedFile sink = WritableMappedFile::map(file.range(0, 50'000));
  CHECK(transfer(file.range(100, 1'000), sink, ec).delivered == 0);
  CHECK(ec == std::errc::invalid_argument);
  CHECK((content(file) == text));
  // What does not overlap is copied.
  CHECK(transfer(file.range(60'000, 1'000), sink, ec).delivered == 1'000);
  CHECK((content(file).substr(0, 1'000) == text.substr(60'000, 1'000)));
}

TEST_CASE("a mapped sink whose file became shorter is an error at the sink, not SIGBUS", "[edges]") {
  File file = filled(pattern(20'000));
  const WritableMappedFile sink = WritableMappedFile::map(file);
  file.resize(0);
  const std::string text = pattern(10'000);
  std::error_code ec;
  const TransferResult from_memory = transfer(bytes(text), sink, ec);
  CHECK(ec == std::errc::bad_address);
  CHECK(from_memory.side == Side::sink);
  const File source = filled(text);
  const TransferResult from_file = transfer(source, sink, ec);
  CHECK(ec == std::errc::bad_address);
  CHECK(from_file.side == Side::sink);
  CHECK(source.position() == 0);
}

TEST_CASE("a File that is open on a FIFO is a pipe: no SIGPIPE, no hang, nothing lost", "[edges]") {
  const std::string text = pattern(11);
  SECTION("a dead reader") {
    Fifo fifo;
    fifo.reader.reset();
    std::error_code ec;
    CHECK(transfer(bytes(text), File(std::move(fifo.writer)), ec).reason == StopReason::sink_closed);
  }
  SECTION("nobody reads") {
    Fifo fifo;
    const File sink(std::move(fifo.writer));
    std::error_code ec;
    const std::string large = pattern(200'000);
    CHECK(transfer(bytes(large), sink, {.deadline = in(100ms)}, ec).reason == StopReason::timed_out);
    const File source = filled(large);
    CHECK(transfer(source, sink, {.length = large.size(), .deadline = in(100ms)}, ec).reason == StopReason::timed_out);
  }
  SECTION("bytes for a dead socket are stranded or stay in the FIFO") {
    Fifo fifo;
    const File source(std::move(fifo.reader));
    REQUIRE(::write(fifo.writer.get(), text.data(), text.size()) == 11);
    auto [sink, gone] = Socket::pair();
    gone = Socket(OwnedFd());
    std::error_code ec;
    const TransferResult r = transfer(source, sink, ec);
    CHECK(r.reason == StopReason::sink_closed);
    char rest[32];
    const ssize_t left = ::read(source.as_fd().get(), rest, sizeof(rest));
    const std::uint64_t stranded = r.stranded ? r.stranded->size() : 0;
    CHECK(stranded + static_cast<std::uint64_t>(std::max<ssize_t>(left, 0)) == 11);
    CHECK(r.consumed == stranded);
  }
}

TEST_CASE("a tty obeys a deadline at either end", "[edges]") {
  int master = -1;
  int slave = -1;
  REQUIRE(::openpty(&master, &slave, nullptr, nullptr, nullptr) == 0);
  const OwnedFd keep(master);
  const OwnedFd tty(slave);
  const File file = filled(pattern(300'000));
  std::error_code ec;
  CHECK(transfer(file, tty.as_fd(), {.deadline = in(100ms)}, ec).reason == StopReason::timed_out);
  const File sink = File::temporary();
  CHECK(transfer(tty.as_fd(), sink, {.deadline = in(100ms)}, ec).reason == StopReason::timed_out);
}

TEST_CASE("a blocking listening socket is an error at once", "[edges]") {
  const Listener listener = Listener::bind("127.0.0.1", 0);
  const int flags = ::fcntl(listener.as_fd().get(), F_GETFL);
  REQUIRE(::fcntl(listener.as_fd().get(), F_SETFL, flags & ~O_NONBLOCK) == 0);
  const File sink = File::temporary();
  std::error_code ec;
  const TransferResult r = transfer(listener.as_fd(), sink, ec);
  CHECK(ec == std::errc::not_connected);
  CHECK(r.side == Side::source);
}

TEST_CASE("a descriptor limit of zero is no reason to spin", "[edges]") {
  const std::string wrong = wrong_in_child([] {
    auto [silent, other] = Socket::pair();
    const File sink = File::temporary();
    const rlimit limit{1, 1};
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return 2;
    std::error_code ec;
    return transfer(silent, sink, {.deadline = in(100ms)}, ec).reason == StopReason::timed_out ? 0 : 1;
  });
  CHECK(wrong == "");
}

TEST_CASE("a transfer in a destructor after the thread's pool is gone works", "[edges]") {
  const std::string wrong = wrong_in_child([] {
    static bool good = false;
    struct Late {
      ~Late() {
        const std::string text = pattern(1'000);
        Pipe pipe = Pipe::create();
        (void)transfer(bytes(text), pipe.writer());
        pipe.writer().close();
        const File sink = File::temporary();
        good = transfer(pipe.reader(), sink, {.strategy = Strategy::read_write}).delivered == 1'000 &&
               content(sink) == text;
      }
    };
    std::thread([] {
      thread_local Late late;  // made before the pool, destroyed after it
      (void)&late;
      const File a = filled(pattern(10'000));
      const File b = File::temporary();
      (void)transfer(a, b, {.strategy = Strategy::splice});
      (void)transfer(a.range(0), b, {.strategy = Strategy::read_write});
    }).join();
    return good ? 0 : 1;
  });
  CHECK(wrong == "");
}

TEST_CASE("a full sink that was asked for more says so, and without a length it is complete", "[edges]") {
  const std::string text = pattern(20);
  std::string ten(10, '\0');
  const auto sink = std::as_writable_bytes(std::span(ten));
  std::error_code ec;
  const TransferResult r = transfer(bytes(text), sink, {.length = 20}, ec);
  CHECK(r.delivered == 10);
  CHECK(ec == Errc::sink_full);
  CHECK(ec == std::errc::no_space_on_device);
  CHECK(r.side == Side::sink);
  CHECK(transfer(bytes(text), sink).reason == StopReason::complete);
  CHECK(ten == text.substr(0, 10));
}

TEST_CASE("a file that becomes shorter while a small transfer waits is truncated", "[edges]") {
  File file = filled(pattern(200'000));
  auto [a, b] = Socket::pair();
  a.set_send_buffer(8 * 1024);
  std::thread other([&, &reader = b] {
    pollfd readable{reader.as_fd().get(), POLLIN, 0};
    ::poll(&readable, 1, 5000);
    std::string some(1'000, '\0');
    (void)transfer(reader, std::as_writable_bytes(std::span(some)));
    file.resize(100'000);
    std::string rest(99'000, '\0');
    std::error_code ec;
    (void)transfer(reader, std::as_writable_bytes(std::span(rest)), {.deadline = in(10s)}, ec);
  });
  std::error_code ec;
  const TransferResult r = transfer(file, a, {.length = 200'000}, ec);
  other.join();
  CHECK(r.reason == StopReason::source_truncated);
  CHECK(r.delivered == 100'000);
}

TEST_CASE("a gather keeps what a part strands, and goes on behind a range that a length does not end", "[edges]") {
  auto [a, b] = Socket::pair(SocketType::datagram);
  REQUIRE(::send(b.as_fd().get(), "0123456789abcde", 15, 0) == 15);
  const std::string tail = "tail";
  std::string ten(10, '\0');
  TransferResult r = transfer(gather(a, bytes(tail)), std::as_writable_bytes(std::span(ten)));
  CHECK(r.delivered == 10);
  CHECK(r.consumed == 15);
  REQUIRE(r.stranded);
  CHECK(r.stranded->size() == 5);

  const File file = filled("0123456789");
  const std::string head = "head";
  const File sink = File::temporary();
  const TransferResult whole = transfer(gather(bytes(head), file.range(0, 5), bytes(tail)), sink, {.length = 100});
  CHECK(whole.delivered == 13);
  CHECK(whole.reason == StopReason::end_of_source);
  CHECK(content(sink) == "head01234tail");
}

TEST_CASE("a gather checks all parts before the first byte", "[edges]") {
  const File file = filled("0123456789");
  const std::string head = "HEADER";
  std::error_code ec;
  CHECK(transfer(gather(bytes(head), BorrowedFd(-1)), file.range(0), ec).delivered == 0);
  CHECK(ec == std::errc::bad_file_descriptor);
  CHECK(transfer(gather(bytes(head), file.range(0, 5)), file.range(0), ec).delivered == 0);
  CHECK(ec == Errc::same_file);
  CHECK(content(file) == "0123456789");
}

TEST_CASE("a gather that ends early leaves no packet behind", "[edges]") {
  const Listener listener = Listener::bind("127.0.0.1", 0);
  const Socket client = Socket::connect("127.0.0.1", listener.port());
  const Socket server = const_cast<Listener&>(listener).accept();
  const std::string head = "0123456789";
  const std::string tail = "tail";
  std::string got(10, '\0');
  (void)transfer(gather(bytes(head), bytes(tail)), client, {.length = 10});
  const auto start = std::chrono::steady_clock::now();
  (void)transfer(server, std::as_writable_bytes(std::span(got)));
  CHECK(std::chrono::steady_clock::now() - start < 150ms);  // a promise of more holds it for 200 ms
  CHECK(got == head);
}

TEST_CASE("stranded bytes are one message to a message sink", "[edges]") {
  auto [feeder, source] = Socket::pair();
  feeder.set_send_buffer(1 << 20);
  const std::string text = pattern(93'000);
  (void)transfer(bytes(text), feeder);
  auto [dead, reader] = Socket::pair();
  reader = Socket(OwnedFd());
  std::error_code ec;
  TransferResult r = transfer(source, dead, {.strategy = Strategy::splice, .length = text.size()}, ec);
  REQUIRE(r.stranded);
  const std::uint64_t n = r.stranded->size();
  REQUIRE(n > 1'000);
  auto [out, in_socket] = Socket::pair(SocketType::seqpacket);
  CHECK(transfer(*r.stranded, out).delivered == n);
  std::string got(200'000, '\0');
  CHECK(::recv(in_socket.as_fd().get(), got.data(), got.size(), 0) == static_cast<ssize_t>(n));
  CHECK((got.substr(0, n) == text.substr(0, n)));
}

TEST_CASE("more is no promise for messages", "[edges]") {
  const Socket receiver = Socket::bind("127.0.0.1", 0);
  const Socket sender = Socket::connect("127.0.0.1", receiver.local_port(), {.type = SocketType::datagram});
  const std::string one = "aaa";
  CHECK(transfer(bytes(one), sender, {.more = true}).delivered == 3);
  char got[16];
  pollfd readable{receiver.as_fd().get(), POLLIN, 0};
  REQUIRE(::poll(&readable, 1, 2000) == 1);
  CHECK(::recv(receiver.as_fd().get(), got, sizeof(got), 0) == 3);
}

TEST_CASE("a child after fork has a pool and a bell of its own", "[edges]") {
  auto [silent, other] = Socket::pair();
  const File sink = File::temporary();
  std::stop_source stop;
  std::error_code ec;
  // A wait with a stop token makes this thread's bell.
  (void)transfer(silent, sink, {.deadline = in(10ms), .stop = stop.get_token()}, ec);
  const std::string wrong = wrong_in_child([&, &quiet = silent] {
    std::stop_source mine;
    std::thread ring([&] {
      ::poll(nullptr, 0, 30);
      mine.request_stop();
    });
    std::error_code error;
    const bool stopped =
        transfer(quiet, sink, {.deadline = in(10s), .stop = mine.get_token()}, error).reason == StopReason::stopped;
    ring.join();
    return stopped ? 0 : 1;
  });
  CHECK(wrong == "");
}
