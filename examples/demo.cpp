// demo: moves one file (and the same bytes from memory) to every kind of sink by every strategy that serves the pair,
// checks each arrival, and says what would have been chosen automatically and why.
//
//   demo [SIZE]      SIZE in bytes, or with K, M or G; 64M if not given. Needs twice SIZE in $TMPDIR (or /tmp) and in
//                    memory. Exit status 1 if anything arrived wrong.
//
// The receivers are plain read(2) loops, so that the library does not check itself. They store what arrives in memory;
// the digest is taken when the clock has stopped. The rate counts from the call until the receiver has seen the end.
#include <zerocopy/format.hpp>
#include <zerocopy/zerocopy.hpp>

#include <fmt/format.h>

#include <unistd.h>  // read

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <future>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zc = zerocopy;
using Clock = std::chrono::steady_clock;

namespace {

// FNV-1a, 64 bits.
std::uint64_t digest(std::span<const std::byte> bytes) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const std::byte b : bytes) hash = (hash ^ static_cast<std::uint64_t>(b)) * 0x100000001b3;
  return hash;
}

std::string temporary_directory() {
  const char* dir = std::getenv("TMPDIR");
  return dir != nullptr && *dir != '\0' ? dir : "/tmp";
}

std::uint64_t parse_size(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const int shift = unit.empty() ? 0 : unit == "K" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : -1;
  if (error != std::errc() || shift < 0 || number == 0 || number > (std::uint64_t{1} << 40) >> shift)
    throw std::invalid_argument(fmt::format("'{}' is not a size: say 1000000, 64M or 2G", text));
  return number << shift;
}

// A byte depends on its position, so that a byte too many, too few or in the wrong place changes the digest.
std::vector<std::byte> make_pattern(std::uint64_t size) {
  std::vector<std::byte> bytes(size);
  std::uint64_t state = 1;
  for (std::byte& b : bytes) {
    state = state * 6364136223846793005 + 1442695040888963407;
    b = static_cast<std::byte>(state >> 56);
  }
  return bytes;
}

// --- one run ----------------------------------------------------------------------------------------------------------

struct Arrival {
  std::uint64_t bytes = 0;  // also those that had no room
  Clock::time_point end;
};

// Reads until the end. Runs in a thread of its own.
Arrival receive(int fd, std::span<std::byte> into) {
  Arrival arrival;
  std::byte no_room[4096];
  for (;;) {
    const std::span<std::byte> room =
        arrival.bytes < into.size() ? into.subspan(arrival.bytes) : std::span<std::byte>(no_room);
    const ssize_t n = ::read(fd, room.data(), std::min(room.size(), std::size_t{1} << 20));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;  // an error shows as bytes that are missing
    arrival.bytes += static_cast<std::uint64_t>(n);
  }
  arrival.end = Clock::now();
  return arrival;
}

struct Run {
  zc::TransferResult result;
  double seconds = 0;
  bool arrived_whole = false;
};

struct Demo {
  std::uint64_t size;
  std::string directory;
  std::vector<std::byte> arrived;  // where receivers store
  std::uint64_t expected;          // digest
  bool failed = false;

  // Sends `source` through a sink whose other end is `receiver`, a descriptor that blocks.
  template <class Source, class Sink>
  Run send(const Source& source, Sink sink, zc::BorrowedFd receiver, const zc::Options& options) {
    std::fill(arrived.begin(), arrived.end(), std::byte{});
    auto arrival = std::async(std::launch::async, receive, receiver.get(), std::span(arrived));
    Run run;
    std::error_code reported_in_result;
    const auto start = Clock::now();
    run.result = zc::transfer(source, sink, options, reported_in_result);
    sink = Sink(zc::OwnedFd());  // closed: the receiver sees the end
    const Arrival got = arrival.get();
    run.seconds = std::chrono::duration<double>(got.end - start).count();
    run.arrived_whole = got.bytes == size && digest(arrived) == expected;
    return run;
  }

  template <class Source>
  Run send_over_tcp(const Source& source, const zc::Options& options) {
    auto listener = zc::Listener::bind("127.0.0.1", 0);
    auto sender = zc::Socket::connect("127.0.0.1", listener.port());
    auto receiver = listener.accept();
    receiver.set_blocking(true);
    return send(source, std::move(sender), receiver.as_fd(), options);
  }
  template <class Source>
  Run send_over_unix(const Source& source, const zc::Options& options) {
    auto [sender, receiver] = zc::Socket::pair();
    receiver.set_blocking(true);
    return send(source, std::move(sender), receiver.as_fd(), options);
  }
  template <class Source>
  Run send_through_pipe(const Source& source, const zc::Options& options) {
    auto pipe = zc::Pipe::create({.capacity = 1 << 20});
    pipe.reader().set_blocking(true);
    auto reader = std::move(pipe.reader());
    return send(source, std::move(pipe.writer()), reader.as_fd(), options);
  }
  template <class Source>
  Run write_to_file(const Source& source, const zc::Options& options) {
    const auto sink = zc::File::temporary(directory);
    Run run;
    std::error_code reported_in_result;
    const auto start = Clock::now();
    run.result = zc::transfer(source, sink, options, reported_in_result);
    run.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (!run.result.error) run.arrived_whole = digest(zc::MappedFile::map(sink).bytes()) == expected;
    return run;
  }

  // --- the table ------------------------------------------------------------------------------------------------------

  static void heading() {
    fmt::print("{:<18} {:<16} {:>7} {:>6}  {:<6}  {}\n", "pair", "strategy", "MB/s", "calls", "digest", "remarks");
  }

  // The trail as text: what was passed over, and why.
  static std::string left(const zc::TransferResult& result) {
    std::string text;
    for (const zc::FallbackStep step : result.trail)
      text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", step.strategy, step.error.message());
    return text;
  }

  void row(std::string_view pair, std::string_view strategy, const Run& run, const std::string& remarks) {
    const bool ok = run.arrived_whole && !run.result.error;
    if (!ok) failed = true;
    const double rate = static_cast<double>(run.result.delivered) / 1e6 / run.seconds;
    fmt::print("{:<18} {:<16} {:>7.0f} {:>6}  {:<6}  {}\n", pair, strategy, rate, run.result.calls, ok ? "ok" : "WRONG",
               ok ? remarks : fmt::format("{}", run.result));
    std::fflush(stdout);
  }

  // `run` makes one transfer with the options that it is given.
  // What is chosen when nothing is forced, and why: either the first of the pair's order served, or those before it said
  // why they could not. `because` tells what the options ruled out beforehand.
  template <class Move>
  void show_automatic(std::string_view pair, std::string_view name, std::string_view because,
                      const zc::Options& options, Move run) {
    const Run automatic = run(options);
    const zc::TransferResult& result = automatic.result;
    const std::string why = result.trail.empty() ? "first in order, not refused" : "left " + left(result);
    const std::string chosen = result.strategy ? fmt::format("chose {}: ", *result.strategy) : "";
    row(pair, name, automatic, chosen + why + std::string(because));
  }

  template <class Move>
  void show_forced(std::string_view pair, zc::Options options, Move run) {
    std::string never;
    for (std::size_t i = 0; i < zc::strategy_count; ++i) {
      options.strategy = static_cast<zc::Strategy>(i);
      const Run forced = run(options);
      const zc::TransferResult& result = forced.result;
      const bool unavailable = result.error == zc::Errc::strategy_unavailable;
      const bool by_table =
          unavailable && !result.trail.empty() && result.trail[0].error == zc::Errc::not_for_this_pair;
      if (by_table) {
        never += fmt::format("{}{}", never.empty() ? "" : ", ", *options.strategy);
      } else if (unavailable) {
        fmt::print("{:<18} {:<16} {:>7} {:>6}  {:<6}  not here: {}\n", pair, *options.strategy, "-", "-", "-",
                   left(result));
      } else {
        row(pair, zc::to_string(*options.strategy), forced, "");
      }
    }
    if (!never.empty()) fmt::print("{:<18} not for this pair: {}\n", pair, never);
  }

  // The untimed first transfer warms the caches up, by the strategy that asks nothing of the kernel.
  template <class Move>
  void show_file_source(std::string_view pair, Move run) {
    (void)run({.strategy = zc::Strategy::read_write});
    show_automatic(pair, "(automatic)", "", {}, run);
    show_forced(pair, {}, run);
  }
  template <class Move>
  void show_memory_source(std::string_view pair, Move run) {
    const zc::Options shared{.aliasing = zc::Aliasing::shared};
    (void)run({.strategy = zc::Strategy::read_write});
    show_automatic(pair, "(automatic)", "; memory may change, so nothing that shares it", {}, run);
    show_automatic(pair, "(auto, shared)", "", shared, run);
    show_forced(pair, shared, run);
  }
};

int run(std::uint64_t size) {
  Demo demo{.size = size, .directory = temporary_directory(), .arrived = {}, .expected = 0};
  const std::vector<std::byte> bytes = make_pattern(size);
  const std::span<const std::byte> memory(bytes);
  auto file = zc::File::temporary(demo.directory);
  fmt::print("made a file: {}\n\n", zc::transfer(memory, file));
  demo.arrived.resize(size);
  demo.expected = digest(memory);

  const auto from_file = [&](auto method) {
    return [&demo, &file, method](const zc::Options& options) {
      file.seek(0);
      return (demo.*method)(file, options);
    };
  };
  const auto from_memory = [&](auto method) {
    return [&demo, memory, method](const zc::Options& options) { return (demo.*method)(memory, options); };
  };
  using Memory = std::span<const std::byte>;
  Demo::heading();
  demo.show_file_source("file > TCP", from_file(&Demo::send_over_tcp<zc::File>));
  demo.show_file_source("file > AF_UNIX", from_file(&Demo::send_over_unix<zc::File>));
  demo.show_file_source("file > file", from_file(&Demo::write_to_file<zc::File>));
  demo.show_file_source("file > pipe", from_file(&Demo::send_through_pipe<zc::File>));
  demo.show_memory_source("memory > TCP", from_memory(&Demo::send_over_tcp<Memory>));
  demo.show_memory_source("memory > AF_UNIX", from_memory(&Demo::send_over_unix<Memory>));
  demo.show_memory_source("memory > file", from_memory(&Demo::write_to_file<Memory>));
  demo.show_memory_source("memory > pipe", from_memory(&Demo::send_through_pipe<Memory>));

  fmt::print("\n{} bytes each, FNV-1a {:016x}: {}\n", size, demo.expected,
             demo.failed ? "something arrived wrong" : "every arrival had it");
  return demo.failed ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc > 2) throw std::invalid_argument("usage: demo [SIZE]");
    return run(argc == 2 ? parse_size(argv[1]) : std::uint64_t{64} << 20);
  } catch (const std::exception& error) {
    fmt::print(stderr, "demo: {}\n", error.what());
    return 1;
  }
}
