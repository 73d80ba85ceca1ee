// Sandboxes: system calls that a filter refuses, before a transfer and in the middle of it.
#include "catch.hpp"
#include "support/moves.hpp"
#include "support/process.hpp"

#include <condition_variable>
#include <fstream>
#include <mutex>

using namespace ends;
using zc::Aliasing;
using zc::Strategy;

namespace {

enum class From { file, range, mapping, memory, unix_stream, tcp, pipe };
constexpr From every_source[] = {From::file,        From::range, From::mapping, From::memory,
                                 From::unix_stream, From::tcp,   From::pipe};
const char* name_of(From from) {
  constexpr const char* names[] = {"file", "range", "mapping", "memory", "unix", "tcp", "pipe"};
  return names[static_cast<std::size_t>(from)];
}

struct Filter {
  const char* name;
  std::vector<long> calls;
};
const std::vector<Filter>& filters() {
  static const std::vector<Filter> all{
      {"sendfile", {SYS_sendfile}},
      {"splice", {SYS_splice}},
      {"copy_file_range", {SYS_copy_file_range}},
      {"preadv2", {SYS_preadv2}},
      {"pwritev2", {SYS_pwritev2}},
      {"preadv2 and pwritev2", {SYS_preadv2, SYS_pwritev2}},
      {"process_vm_readv", {SYS_process_vm_readv}},
      {"vmsplice", {SYS_vmsplice}},
      {"all of them",
       {SYS_sendfile, SYS_splice, SYS_copy_file_range, SYS_preadv2, SYS_pwritev2, SYS_process_vm_readv, SYS_vmsplice}}};
  return all;
}

std::optional<long> call_of(Strategy strategy) {
  switch (strategy) {
    case Strategy::sendfile: return SYS_sendfile;
    case Strategy::splice: return SYS_splice;
    case Strategy::copy_file_range: return SYS_copy_file_range;
    case Strategy::vmsplice: return SYS_vmsplice;
    default: return std::nullopt;
  }
}
bool refuses(const Filter& filter, Strategy strategy) {
  const auto call = call_of(strategy);
  return call && std::ranges::find(filter.calls, *call) != filter.calls.end();
}
bool tells(const zc::FallbackTrail& trail, Strategy strategy, int error) {
  for (const zc::FallbackStep step : trail)
    if (step.strategy == strategy && step.error.value() == error) return true;
  return false;
}

// Lends a source of the kind that holds `bytes` to `use`, and what is unread of a stream to `rest`.
template <class Use>
auto with_source(From kind, std::span<const std::byte> bytes, Use use, Bytes& rest) {
  const auto stream = [&](FdPair pair) {
    const Feeder feeder(std::move(pair.other), bytes);
    auto result = use(pair.one);
    rest = read_to_end(pair.one.get());
    return result;
  };
  switch (kind) {
    case From::file: {
      const zc::File file{temporary_file(bytes)};
      return use(file);
    }
    case From::range: {
      const zc::File file{temporary_file(bytes)};
      return use(file.range(0));
    }
    case From::mapping: {
      const zc::File file{temporary_file(bytes)};
      return use(zc::MappedFile::map(file));
    }
    case From::unix_stream: return stream(unix_pair());
    case From::tcp: return stream(tcp_pair());
    case From::pipe: return stream(pipe_pair());
    default: return use(bytes);
  }
}

bool is_stream(From kind) { return kind >= From::unix_stream; }

// All transfers under one filter, each compared with the same one before it was there.
std::string under(const Filter& filter, int error) {
  constexpr std::size_t size = 300'000;
  const zc::Options options{.aliasing = Aliasing::shared};
  Strategy usual[std::size(every_source)][every_sink.size()]{};
  Wrong w;
  const auto each = [&](auto run) {
    for (std::size_t f = 0; f < std::size(every_source); ++f) {
      for (std::size_t t = 0; t < every_sink.size(); ++t) {
        if (every_source[f] == From::mapping && every_sink[t] == To::memory) continue;  // has its own test
        Bytes rest;
        const Moved moved = with_source(
            every_source[f], pattern(0, size), [&](const auto& from) { return move_to(every_sink[t], from, options); },
            rest);
        const std::string name = std::string(name_of(every_source[f])) + " to " + ends::name_of(every_sink[t]);
        w.unless(!moved.error, name + " failed: " + moved.text());
        w.unless(same(moved.got, pattern(0, size)), name + ", content: " + moved.text());
        w.unless(rest.empty(), name + ": left in the source");
        run(usual[f][t], moved, name);
      }
    }
  };
  each([](Strategy& used, const Moved& moved, const std::string&) { used = *moved.result.strategy; });
  refuse(filter.calls, error);
  each([&](const Strategy& used, const Moved& moved, const std::string& name) {
    if (refuses(filter, used)) {
      w.unless(moved.result.strategy != used, name + " by what is refused");
      w.unless(tells(moved.result.trail, used, error), name + ", the trail: " + moved.text());
    } else {
      w.unless(moved.result.strategy == used, name + " by another strategy for no reason: " + moved.text());
    }
  });
  return w.text();
}

// A strategy that is forced and refused: unavailable, its errno in the trail, nothing moved or all of it kept.
std::string forced_under(const Filter& filter, int error) {
  constexpr std::size_t size = 300'000;
  Wrong w;
  refuse(filter.calls, error);
  for (const From kind : every_source) {
    for (const To to : every_sink) {
      for (const Strategy strategy :
           {Strategy::sendfile, Strategy::splice, Strategy::copy_file_range, Strategy::vmsplice}) {
        if (!refuses(filter, strategy)) continue;
        Bytes rest;
        Moved moved = with_source(
            kind, pattern(0, size),
            [&](const auto& from) { return move_to(to, from, {.strategy = strategy, .aliasing = Aliasing::shared}); },
            rest);
        const std::string name = std::string(name_of(kind)) + " to " + ends::name_of(to) + " forced " +
                                 std::string(to_string(strategy)) + ": " + moved.text();
        w.unless(moved.is_unavailable(), name + ", not unavailable");
        w.unless(moved.result.trail.begin() != moved.result.trail.end(), name + ", no trail");
        w.unless(moved.result.delivered == 0 && moved.got.empty(), name + ", something moved");
        Bytes held;
        if (moved.result.stranded) held = move_to(To::memory, *moved.result.stranded).got;
        held.insert(held.end(), rest.begin(), rest.end());
        if (is_stream(kind)) w.unless(same(held, pattern(0, size)), name + ", bytes lost");
      }
    }
  }
  return w.text();
}

// Waits until the thread sleeps in a system call, which with a full sink it does; at most a second.
void wait_until_asleep(pid_t thread) {
  const std::string path = "/proc/self/task/" + std::to_string(thread) + "/stat";
  for (int calm = 0, tries = 0; calm < 3 && tries < 1000; ++tries) {
    std::string stat;
    std::getline(std::ifstream(path), stat);
    const std::size_t end = stat.rfind(')');
    calm = end != std::string::npos && stat.size() > end + 2 && stat[end + 2] == 'S' ? calm + 1 : 0;
    ::poll(nullptr, 0, 1);
  }
}

// The filter comes when the sink is full and its reader has taken a part.
std::string in_the_middle(From kind, To to, const Filter& filter, int error, const MaybeStrategy& strategy,
                          bool blocking) {
  constexpr std::size_t size = std::size_t{3} << 20;
  constexpr std::size_t first = 100'000;
  FdPair sink = to == To::pipe ? pipe_pair() : to == To::tcp ? tcp_pair(65'536) : unix_pair();
  zc::OwnedFd& writer = to == To::pipe ? sink.other : sink.one;
  const int reader = to == To::pipe ? sink.one.get() : sink.other.get();
  const int buffer = 65'536;
  if (to != To::pipe) ::setsockopt(writer.get(), SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
  set_nonblocking(writer.get(), !blocking);
  const pid_t mover = ::gettid();
  Bytes got;
  std::thread other([&] {
    got = read_to_end(reader, first);
    wait_until_asleep(mover);
    refuse(filter.calls, error);
    const Bytes more = read_to_end(reader);
    got.insert(got.end(), more.begin(), more.end());
  });
  Bytes rest;
  Moved moved = with_source(
      kind, pattern(0, size),
      [&](const auto& from) {
        Moved m;
        m.result = zc::transfer(from, writer, {.strategy = strategy, .aliasing = Aliasing::shared}, m.error);
        return m;
      },
      rest);
  writer.reset();
  other.join();
  Wrong w;
  const std::uint64_t delivered = moved.result.delivered;
  for (const zc::FallbackStep step : moved.result.trail)
    if (strategy && step.error == zc::Errc::not_for_this_pair) return "";  // not even begun
  w.unless(got.size() == delivered, "got " + std::to_string(got.size()));
  w.unless(delivered >= first, "the filter came before the first bytes");
  w.unless(same(got, pattern(0, std::min(got.size(), size))), "content");
  Bytes held;
  if (moved.result.stranded) held = move_to(To::memory, *moved.result.stranded).got;
  w.unless(moved.result.consumed == delivered + held.size(), "consumed");
  held.insert(held.end(), rest.begin(), rest.end());
  if (is_stream(kind)) w.unless(same(held, pattern(delivered, size - delivered)), "the rest");
  if (!strategy) {
    w.unless(!moved.error && delivered == size, "not all");
  } else if (moved.error) {
    w.unless(moved.is_unavailable(), "neither done nor unavailable");
    w.unless(tells(moved.result.trail, *strategy, error), "the trail of a forced strategy");
  }
  const Strategy best = is_stream(kind) || to == To::pipe
                            ? (kind == From::memory ? Strategy::vmsplice : Strategy::splice)
                            : Strategy::sendfile;
  const bool from_file = kind == From::file || kind == From::range;
  if (!strategy && !blocking && (from_file || is_stream(kind)) && refuses(filter, best))
    w.unless(tells(moved.result.trail, best, error), "the trail");
  return w.text().empty() ? "" : w.text() + moved.text() + "\n";
}

void check_middle(int error, const std::vector<MaybeStrategy>& strategies, bool blocking) {
  const TimeLimit limit(60);
  for (const From kind : every_source) {
    for (const To to : {To::pipe, To::tcp, To::unix_stream}) {
      for (const MaybeStrategy& strategy : strategies) {
        for (const Filter& filter : filters()) {
          const bool everything = filter.calls.size() > 2;
          if (strategy && !refuses(filter, *strategy)) continue;
          if (everything && strategy) continue;
          if (!everything && !refuses(filter, Strategy::splice) && !refuses(filter, Strategy::sendfile)) continue;
          INFO(name_of(kind) << " to " << ends::name_of(to) << ", " << ends::name_of(strategy) << ", without "
                             << filter.name);
          CHECK(in_child([&] { return in_the_middle(kind, to, filter, error, strategy, blocking); }) == "");
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("a filter that refuses a call with EPERM: every pair moves by the next way and says so",
          "[filesystem][seccomp]") {
  for (const Filter& filter : filters()) {
    INFO("without " << filter.name);
    CHECK(in_child([&] { return under(filter, EPERM); }) == "");
  }
}

TEST_CASE("a filter that refuses a call with ENOSYS: every pair moves by the next way and says so",
          "[filesystem][seccomp]") {
  for (const Filter& filter : filters()) {
    INFO("without " << filter.name);
    CHECK(in_child([&] { return under(filter, ENOSYS); }) == "");
  }
}

TEST_CASE("a forced strategy that a filter refuses is unavailable, and nothing is lost", "[filesystem][seccomp]") {
  for (const int error : {EPERM, ENOSYS}) {
    for (const Filter& filter : filters()) {
      INFO(std::strerror(error) << ", without " << filter.name);
      CHECK(in_child([&] { return forced_under(filter, error); }) == "");
    }
  }
}

TEST_CASE("a filter that comes in the middle of a transfer, EPERM: the next way goes on at the same byte",
          "[filesystem][seccomp]") {
  check_middle(EPERM, {std::nullopt}, false);
}

TEST_CASE("a filter that comes in the middle of a transfer, ENOSYS: the next way goes on at the same byte",
          "[filesystem][seccomp]") {
  check_middle(ENOSYS, {std::nullopt}, false);
}

TEST_CASE("a filter that comes while a transfer is blocked in a call: the next way goes on at the same byte",
          "[filesystem][seccomp]") {
  check_middle(EPERM, {std::nullopt}, true);
}

TEST_CASE("a filter that comes in the middle of a forced strategy: unavailable, delivered exact, the rest is kept",
          "[filesystem][seccomp]") {
  check_middle(EPERM, {Strategy::sendfile, Strategy::splice}, false);
}

TEST_CASE("a filter that refuses process_vm_readv: mappings still move to and from memory, files and sockets",
          "[filesystem][seccomp]") {
  for (const int error : {EPERM, ENOSYS}) {
    CHECK(in_child([&] {
            constexpr std::size_t size = 300'000;
            const zc::File file{temporary_file(pattern(0, size))};
            const zc::File target{temporary_file(pattern(size, size))};
            const zc::MappedFile mapping = zc::MappedFile::map(file);
            const zc::WritableMappedFile sink = zc::WritableMappedFile::map(target);
            FdPair pair = unix_pair();
            const Feeder feeder(std::move(pair.other), pattern(0, size));
            refuse({SYS_process_vm_readv}, error);
            Wrong w;
            const auto check = [&](const std::string& name, const auto& from, const auto& to,
                                   std::span<const std::byte> now) {
              Moved moved;
              moved.result = zc::transfer(from, to, {.length = size}, moved.error);
              w.unless(!moved.error && same(now, pattern(0, size)), name + ": " + moved.text());
              pwrite_all(target.as_fd().get(), pattern(size, size), 0);
            };
            Bytes memory(size);
            check("mapping to memory", mapping, std::span(memory), memory);
            check("memory to mapping", pattern(0, size), sink, sink.bytes());
            check("mapping to mapping", mapping, sink, sink.bytes());
            check("file to mapping", file, sink, sink.bytes());
            check("socket to mapping", pair.one, sink, sink.bytes());
            return w.text();
          }) == "");
  }
}
