// A process at its limits: the size of files, the number of descriptors, the quota of pipe pages.
#include "catch.hpp"
#include "support/moves.hpp"
#include "support/process.hpp"

#include <fstream>

using namespace ends;
using zc::Side;
using zc::StopReason;
using zc::Strategy;

namespace {

constexpr std::size_t size = 600'000;
constexpr std::uint64_t largest = 250'001;

enum class From { file, range, memory, socket, pipe };
constexpr From every_source[] = {From::file, From::range, From::memory, From::socket, From::pipe};

void limit_files_to(std::uint64_t bytes) {
  ::signal(SIGXFSZ, SIG_IGN);  // the promise does not speak of it
  const rlimit limit{bytes, bytes};
  checked(::setrlimit(RLIMIT_FSIZE, &limit), "RLIMIT_FSIZE");
}

std::string too_large(From kind, const MaybeStrategy& strategy) {
  Wrong w;
  const zc::File file{temporary_file(pattern(0, size))};
  const zc::File rescue{temporary_file()};
  const zc::File to{temporary_file()};
  FdPair pair = kind == From::pipe ? pipe_pair() : unix_pair();
  std::optional<Feeder> feeder;
  if (kind == From::socket || kind == From::pipe) feeder.emplace(std::move(pair.other), pattern(0, size));
  limit_files_to(largest);
  Moved moved;
  const zc::Options options{.strategy = strategy};
  if (kind == From::file) moved.result = zc::transfer(file, to, options, moved.error);
  if (kind == From::range) moved.result = zc::transfer(file.range(0), to, options, moved.error);
  if (kind == From::memory) moved.result = zc::transfer(pattern(0, size), to, options, moved.error);
  if (kind == From::socket || kind == From::pipe) {
    moved.result = zc::transfer(pair.one, to, options, moved.error);
    Bytes rest(size);
    std::uint64_t held = 0;
    if (moved.result.stranded) held = zc::transfer(*moved.result.stranded, std::span(rest)).delivered;
    w.unless(moved.result.consumed == moved.result.delivered + held, "stranded");
    rest.resize(held);
    const Bytes unread = read_to_end(pair.one.get());
    rest.insert(rest.end(), unread.begin(), unread.end());
    w.unless(same(rest, pattern(moved.result.delivered, size - moved.result.delivered)), "the rest");
  } else {
    w.unless(moved.result.consumed == moved.result.delivered, "consumed");
  }
  const std::uint64_t delivered = moved.result.delivered;
  moved.got = pread_all(to.as_fd().get());
  w.unless(static_cast<bool>(moved.error), "no error");
  w.unless(same(moved.got, pattern(0, delivered)), "content");
  w.unless(to.position() == delivered, "sink position");
  if (kind == From::file) w.unless(file.position() == delivered, "source position");
  if (!(strategy && moved.is_unavailable())) {
    w.unless(moved.error == std::errc::file_too_large, "not EFBIG");
    w.unless(moved.result.side == Side::sink, "side");
    w.unless(delivered == largest, "delivered");
    for (const zc::FallbackStep step : moved.result.trail)
      w.unless(step.error != std::errc::file_too_large, "another strategy was tried");
  }
  return w.text().empty() ? "" : w.text() + moved.text();
}

// All the descriptors that this process may have, but `left`.
std::vector<zc::OwnedFd> use_up_descriptors(int left) {
  const rlimit limit{64, 64};
  checked(::setrlimit(RLIMIT_NOFILE, &limit), "RLIMIT_NOFILE");
  std::vector<zc::OwnedFd> all;
  for (int fd; (fd = ::dup(0)) >= 0;) all.emplace_back(fd);
  all.resize(all.size() - static_cast<std::size_t>(left));
  return all;
}

}  // namespace

TEST_CASE("a file-size limit: EFBIG at the sink, delivered reaches the limit, nothing is lost",
          "[filesystem][limits]") {
  const TimeLimit limit(30);
  for (const From kind : every_source) {
    for (const MaybeStrategy& strategy : file_strategies()) {
      INFO("source " << static_cast<int>(kind) << ", " << name_of(strategy));
      CHECK(in_child([&] { return too_large(kind, strategy); }) == "");
    }
  }
}

TEST_CASE("no descriptor is left for a pipe, or one: the copying way is taken, nothing leaks", "[filesystem][limits]") {
  const TimeLimit limit(30);
  for (const int left : {0, 1, 2, 3}) {
    for (const MaybeStrategy strategy : {MaybeStrategy{}, MaybeStrategy{Strategy::splice}}) {
      INFO(left << " left, " << name_of(strategy));
      CHECK(in_child([&]() -> std::string {
              Wrong w;
              FdPair source = unix_pair();
              FdPair sink = unix_pair();
              Feeder feeder(std::move(source.other), pattern(0, size));
              Drainer drainer(sink.other.get());
              const zc::OwnedFd file = temporary_file(pattern(0, size));
              const zc::OwnedFd copy = temporary_file();
              // Closes the pipes that the parent's pool had.
              (void)zc::transfer(zc::FileRange(file.as_fd(), 0, 1), zc::FileRange(copy.as_fd(), 0, 1),
                                 {.strategy = Strategy::read_write});
              std::vector<zc::OwnedFd> all = use_up_descriptors(left);
              Moved moved;
              moved.result = zc::transfer(source.one, sink.one, {.strategy = strategy}, moved.error);
              const bool can = left >= 2;
              if (strategy && !can) {
                w.unless(moved.is_unavailable(), "forced without a pipe");
                w.unless(moved.result.delivered == 0, "delivered");
                bool told = false;
                for (const zc::FallbackStep step : moved.result.trail)
                  told = told || step.error == std::errc::too_many_files_open;
                w.unless(told, "EMFILE is not in the trail");
              } else {
                w.unless(!moved.error && moved.result.delivered == size, "socket to socket");
              }
              sink.one.reset();
              source.one.reset();
              moved.got = drainer.bytes();
              w.unless(same(moved.got, pattern(0, moved.result.delivered)), "what arrived");
              // Forced splice between files needs a pipe too.
              std::error_code ec;
              const auto r = zc::transfer(file, copy, {.allow = {Strategy::splice, Strategy::read_write}}, ec);
              w.unless(!ec && r.delivered == size && same(pread_all(copy.get()), pattern(0, size)), "file to file");
              return w.text().empty() ? "" : w.text() + moved.text();
            }) == "");
    }
  }
}

TEST_CASE("an unprivileged user past the pipe quota: splice goes on with 8 KiB pipes, right bytes",
          "[filesystem][limits]") {
  if (!is_root()) {
    WARN("skipped: only root can become another user");
    return;
  }
  long soft = 0;
  std::ifstream("/proc/sys/fs/pipe-user-pages-soft") >> soft;
  if (soft <= 0 || soft > 20'000) {
    WARN("skipped: no quota of pipe pages for a user, or one that is too large to use up");
    return;
  }
  const TimeLimit limit(30);
  for (const char* pair : {"unix to unix", "tcp to file", "file to unix", "pipe to file", "file to file"}) {
    INFO(pair);
    CHECK(in_child([&]() -> std::string {
            Wrong w;
            const std::string name = pair;
            const zc::OwnedFd content = temporary_file(pattern(0, size));
            const zc::OwnedFd copy = temporary_file();
            become_nobody();
            std::vector<FdPair> all;
            for (int capacity = 1 << 20; capacity > 8192;) {
              all.push_back(pipe_pair());
              capacity = ::fcntl(all.back().one.get(), F_SETPIPE_SZ, 1 << 20);
              if (capacity < 0) capacity = ::fcntl(all.back().one.get(), F_GETPIPE_SZ);
              if (all.size() > 500) return "the quota is never used up";
            }
            FdPair source = name.starts_with("tcp") ? tcp_pair() : name.starts_with("pipe") ? pipe_pair() : unix_pair();
            FdPair sink = unix_pair();
            Feeder feeder(std::move(source.other), pattern(0, size));
            Drainer drainer(sink.other.get());
            const int from = name.starts_with("file") ? content.get() : source.one.get();
            const int to = name.ends_with("file") ? copy.get() : sink.one.get();
            Moved moved;
            moved.result =
                zc::transfer(zc::BorrowedFd(from), zc::BorrowedFd(to), {.strategy = Strategy::splice}, moved.error);
            source.one.reset();
            sink.one.reset();
            moved.got = drainer.bytes();
            if (to == copy.get()) moved.got = pread_all(to);
            w.unless(!moved.error, "error");
            w.unless(moved.result.delivered == size, "delivered");
            w.unless(moved.result.strategy == Strategy::splice, "not by splice");
            w.unless(same(moved.got, pattern(0, size)), "content");
            return w.text().empty() ? "" : w.text() + moved.text();
          }) == "");
  }
}
