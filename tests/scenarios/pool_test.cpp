// The pipes that a thread keeps: small ones, none at all, dirty ones, and whose they are.
#include "catch.hpp"
#include "support/process.hpp"

#include <optional>
#include <set>

namespace {

using namespace ends;
using zc::Errc;
using zc::StopReason;
using zc::Strategy;

std::string name(const std::optional<Strategy>& s) { return s ? std::string(to_string(*s)) : "automatic"; }

// The pipes that this process has open, by inode, with the number of descriptors of each.
std::multiset<std::string> open_pipes() {
  std::multiset<std::string> pipes;
  DIR* dir = ::opendir("/proc/self/fd");
  while (const dirent* entry = ::readdir(dir)) {
    std::array<char, 64> target{};
    const ssize_t n = ::readlinkat(::dirfd(dir), entry->d_name, target.data(), target.size());
    const std::string text(target.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    if (text.rfind("pipe:", 0) == 0) pipes.insert(text);
  }
  ::closedir(dir);
  return pipes;
}

// 5000 bytes from a socket to a socket through a pipe of the library's own; what is wrong with them.
std::string clean_splice(std::size_t at = 300000) {
  Wrong w;
  FdPair from = unix_pair();
  FdPair to = unix_pair();
  write_all(from.other.get(), pattern(at, 5000));
  from.other.reset();
  std::error_code ec;
  const auto r = zc::transfer(from.one, to.one, {.strategy = Strategy::splice}, ec);
  to.one.reset();
  w.unless(!ec, ec.message());
  w.unless(r.delivered == 5000 && r.strategy == Strategy::splice, "delivered " + std::to_string(r.delivered));
  w.unless(same(read_to_end(to.other.get()), pattern(at, 5000)), "content");
  return w.text();
}

// Stops while bytes are in its pipe: the sink is full.
zc::TransferResult cancelled_splice(bool from_file, std::size_t at, const FdPair& to) {
  std::error_code ec;
  const zc::Options options{.strategy = Strategy::splice, .deadline = Clock::now() + 3ms};
  if (from_file) {
    const zc::OwnedFd file = temporary_file(pattern(at, 1000000));
    return zc::transfer(file, to.one, options, ec);
  }
  FdPair from = unix_pair();
  const int large = 1 << 20;
  ::setsockopt(from.other.get(), SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
  set_nonblocking(from.other.get(), true);
  std::ignore = ::write(from.other.get(), pattern(at, 150000).data(), 150000);
  return zc::transfer(from.one, to.one, options, ec);
}

void fill(int fd) {
  set_nonblocking(fd, true);
  while (::write(fd, pattern().data(), 4096) > 0) {
  }
}

// 1 MiB, or less where /proc/sys/fs/pipe-max-size or a quota says so.
int pipe_size_allowed() {
  const FdPair pipe = pipe_pair();
  std::ignore = ::fcntl(pipe.one.get(), F_SETPIPE_SZ, 1 << 20);
  return ::fcntl(pipe.one.get(), F_GETPIPE_SZ);
}

// Becomes nobody and uses up that user's quota of pipe pages; what is left for a new pipe, in bytes.
int use_up_pipe_quota(std::vector<FdPair>& hoard) {
  become_nobody();
  for (int i = 0; i < 200; ++i) {
    hoard.push_back(pipe_pair());
    if (::fcntl(hoard.back().one.get(), F_SETPIPE_SZ, 1 << 20) < 0 &&
        ::fcntl(hoard.back().one.get(), F_GETPIPE_SZ) < 65536)
      break;
  }
  return ::fcntl(hoard.back().one.get(), F_GETPIPE_SZ);
}

}  // namespace

TEST_CASE("the caller's own pipes of 4 KiB and 8 KiB: every byte, both directions, blocking or not") {
  const TimeLimit alarm(60);
  for (const int capacity : {4096, 8192}) {
    for (const bool blocking : {false, true}) {
      for (const auto& s : {std::optional<Strategy>{}, std::optional{Strategy::splice},
                            std::optional{Strategy::mmap_write}, std::optional{Strategy::read_write}}) {
        INFO(capacity << " " << name(s) << (blocking ? ", blocking" : ""));
        FdPair pipe = pipe_pair();
        CHECK(::fcntl(pipe.one.get(), F_SETPIPE_SZ, capacity) == capacity);
        set_nonblocking(pipe.one.get(), !blocking);
        set_nonblocking(pipe.other.get(), !blocking);
        const zc::OwnedFd from = temporary_file(pattern(0, 300000));
        const zc::OwnedFd to = temporary_file();
        std::error_code in_error;
        std::thread writer([&] {
          std::ignore = zc::transfer(from, pipe.other, {.strategy = s, .deadline = Clock::now() + 20s}, in_error);
          pipe.other.reset();
        });
        const std::optional<Strategy> out = s == Strategy::mmap_write ? std::nullopt : s;
        std::error_code ec;
        const auto r = zc::transfer(pipe.one, to, {.strategy = out, .deadline = Clock::now() + 20s}, ec);
        writer.join();
        CHECK_FALSE(ec);
        CHECK_FALSE(in_error);
        CHECK(r.delivered == 300000);
        CHECK(same(pread_all(to.get()), pattern(0, 300000)));
      }
    }
  }
}

TEST_CASE("over the user's pipe quota: every kind of pair goes on with pipes of 8 KiB") {
  if (!is_root()) {
    WARN("skipped: only root can become another user with its own quota");
    return;
  }
  const std::string wrong = in_child([] {
    Wrong w;
    std::ignore = pattern();
    const zc::OwnedFd file = temporary_file(pattern(0, 500000));
    rlimit files{2000, 2000};
    ::setrlimit(RLIMIT_NOFILE, &files);
    std::vector<FdPair> hoard;
    const int granted = use_up_pipe_quota(hoard);
    w.unless(granted <= 8192, "the quota was not reached: " + std::to_string(granted));
    for (const auto& s : {std::optional<Strategy>{}, std::optional{Strategy::splice}}) {
      for (const int source : {0, 1, 2}) {
        for (const bool limited : {false, true}) {
          const std::string what = name(s) + " from " + std::to_string(source) + (limited ? " limited: " : ": ");
          FdPair from = source == 1 ? unix_pair() : tcp_pair();
          FdPair to = tcp_pair();
          std::optional<Feeder> feeder;
          if (source > 0) feeder.emplace(std::move(from.other), pattern(0, 500000));
          Drainer drainer(to.other.get());
          zc::Options options{.strategy = s};
          if (limited) options.deadline = Clock::now() + 10s;
          std::error_code ec;
          const auto r = source == 0 ? zc::transfer(zc::FileRange(file.as_fd(), 0), to.one, options, ec)
                                     : zc::transfer(from.one, to.one, options, ec);
          to.one.reset();
          w.unless(!ec && r.delivered == 500000, what + ec.message() + " " + std::to_string(r.delivered));
          w.unless(same(drainer.bytes(), pattern(0, 500000)), what + "content");
        }
      }
    }
    return w.text();
  });
  CHECK(wrong == "");
}

TEST_CASE("pipe2 refused: the copying way, and the trail says why") {
  const std::string wrong = in_child([] {
    Wrong w;
    refuse({SYS_pipe2}, EMFILE);
    FdPair from = unix_pair();
    FdPair to = unix_pair();
    write_all(from.other.get(), pattern(0, 50000));
    from.other.reset();
    std::error_code ec;
    const auto r = zc::transfer(from.one, to.one, ec);
    w.unless(!ec && r.delivered == 50000, ec.message());
    w.unless(r.strategy == Strategy::read_write, "strategy");
    w.unless(r.trail.size() == 1 && (*r.trail.begin()).strategy == Strategy::splice &&
                 (*r.trail.begin()).error == std::errc::too_many_files_open,
             "the trail does not say EMFILE");
    to.one.reset();
    w.unless(same(read_to_end(to.other.get()), pattern(0, 50000)), "content");
    return w.text();
  });
  CHECK(wrong == "");
}

TEST_CASE("F_SETPIPE_SZ refused: the default size serves") {
  const std::string wrong = in_child([] {
    Wrong w;
    // Only this call of fcntl is refused.
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 24),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_SETPIPE_SZ, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
    checked(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    checked(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), "seccomp");
    FdPair probe = pipe_pair();
    w.unless(::fcntl(probe.one.get(), F_SETPIPE_SZ, 1 << 20) < 0, "not refused");
    w.unless(clean_splice().empty(), clean_splice());
    return w.text();
  });
  CHECK(wrong == "");
}

TEST_CASE("no descriptors at all, for every pair: the copying way, exact, and forced splice says that it can't") {
  const std::string wrong = in_child([] {
    Wrong w;
    const zc::OwnedFd file = temporary_file(pattern(0, 50000));
    std::vector<FdPair> sources;
    std::vector<FdPair> sinks;
    for (const int kind : {0, 1, 2}) {
      sources.push_back(kind == 0 ? tcp_pair() : kind == 1 ? unix_pair() : pipe_pair());
      write_all(sources.back().other.get(), pattern(0, 50000));
      sources.back().other.reset();
    }
    for (int i = 0; i < 6; ++i) sinks.push_back(unix_pair());
    const zc::OwnedFd file_sink = temporary_file();
    const rlimit limit{100, 100};
    ::setrlimit(RLIMIT_NOFILE, &limit);
    std::vector<zc::OwnedFd> used;
    for (zc::OwnedFd fd(::dup(0)); fd; fd.reset(::dup(0))) used.push_back(std::move(fd));
    std::thread([&] {  // a thread without pooled pipes
      std::error_code ec;
      for (std::size_t i = 0; i < 3; ++i) {
        const auto forced =
            zc::transfer(sources[i].one, sinks[i].one, {.strategy = Strategy::splice, .length = 100}, ec);
        if (i < 2) {
          w.unless(ec == Errc::strategy_unavailable && forced.delivered == 0 && forced.consumed == 0, "forced");
          w.unless(forced.trail.size() == 1 && (*forced.trail.begin()).error == std::errc::too_many_files_open,
                   "forced: the trail");
        }
        const auto r = zc::transfer(sources[i].one, sinks[i].one, ec);
        w.unless(!ec && r.delivered + forced.delivered == 50000, std::to_string(i) + " " + ec.message());
        sinks[i].one.reset();
        w.unless(same(read_to_end(sinks[i].other.get()), pattern(0, 50000)), "content");
      }
      const auto to_file = zc::transfer(zc::FileRange(file.as_fd(), 0), file_sink, ec);
      w.unless(!ec && to_file.delivered == 50000, "to a file: " + ec.message());
      const auto more = zc::transfer(zc::FileRange(file.as_fd(), 0), sinks[4].one, {.more = true}, ec);
      w.unless(!ec && more.delivered == 50000, "more: " + ec.message());
    })
        .join();
    return w.text();
  });
  CHECK(wrong == "");
}

TEST_CASE("64 cancelled splices leave no byte in the next one, and no descriptor open") {
  const TimeLimit alarm(120);
  for (const bool from_file : {false, true}) {
    for (const bool keep : {false, true}) {
      in_thread([&] {
        INFO((from_file ? "from a file" : "from a socket") << (keep ? ", stranded kept" : ""));
        FdPair full = unix_pair();
        fill(full.one.get());
        CHECK(clean_splice() == "");
        const std::size_t before = open_descriptors();
        std::vector<zc::Stranded> kept;
        std::vector<std::size_t> begins;
        int in_flight = 0;
        for (std::size_t i = 0; i < 64; ++i) {
          auto r = cancelled_splice(from_file, i * 1000, full);
          CHECK(r.reason == StopReason::timed_out);
          CHECK(r.delivered == 0);
          if (r.stranded) {
            ++in_flight;
            CHECK(r.stranded->size() == r.consumed);
            if (keep) {
              kept.push_back(std::move(*r.stranded));
              begins.push_back(i * 1000);
            }
          }
          if (i % 8 == 7) CHECK(clean_splice(400000 + i) == "");
        }
        CHECK((from_file ? in_flight == 0 : in_flight == 64));
        CHECK(clean_splice() == "");
        for (std::size_t i = 0; i < kept.size(); ++i) {
          Bytes bytes(kept[i].size());
          CHECK(zc::transfer(kept[i], std::span(bytes)).delivered == bytes.size());
          CHECK(same(bytes, pattern(begins[i], bytes.size())));
        }
        kept.clear();
        CHECK(clean_splice() == "");
        CHECK(open_descriptors() <= before + 6);  // at most four pipes are kept, one of them was there before
        const std::size_t after = open_descriptors();
        for (std::size_t i = 0; i < 64; ++i) std::ignore = cancelled_splice(from_file, i * 1000, full);
        CHECK(clean_splice() == "");
        CHECK(open_descriptors() <= after);
      });
    }
  }
}

TEST_CASE("64 splices whose sink dies, and 64 whose stop comes: no descriptor more than before") {
  const TimeLimit alarm(120);
  in_thread([] {
    CHECK(clean_splice() == "");
    const std::size_t before = open_descriptors();
    const auto pipes = open_pipes();
    CHECK(pipes.size() >= 2);
    for (std::size_t i = 0; i < 64; ++i) {
      FdPair from = unix_pair();
      FdPair to = unix_pair();
      write_all(from.other.get(), pattern(i, 20000));
      if (i % 2 == 0)
        to.other.reset();
      else
        fill(to.one.get());
      std::stop_source stop;
      std::thread stopper([&] {
        std::this_thread::sleep_for(1ms);
        stop.request_stop();
      });
      std::error_code ec;
      std::ignore = zc::transfer(from.one, to.one, {.strategy = Strategy::splice, .stop = stop.get_token()}, ec);
      stopper.join();
      CHECK((ec == Errc::sink_closed || ec == Errc::stopped));
    }
    CHECK(clean_splice() == "");
    CHECK(open_descriptors() <= before + 1);  // and the bell of the stop token, one in a thread
  });
}

TEST_CASE("the pool is per thread, is kept from one transfer to the next, and closes with its thread") {
  const auto before = open_pipes();
  const std::size_t descriptors = open_descriptors();
  std::multiset<std::string> first;
  std::multiset<std::string> second;
  in_thread([&] {
    CHECK(clean_splice() == "");
    first = open_pipes();
    CHECK(first.size() == before.size() + 2);
    for (int i = 0; i < 10; ++i) CHECK(clean_splice() == "");
    CHECK(open_pipes() == first);  // no new pipe per call
    in_thread([&] {
      CHECK(clean_splice() == "");
      second = open_pipes();
      CHECK(second.size() == first.size() + 2);  // a pipe of its own, the other thread's is not touched
    });
    CHECK(open_pipes() == first);
  });
  CHECK(open_pipes() == before);
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("the pool's pipes hold 1 MiB where that is allowed") {
  in_thread([] {
    CHECK(clean_splice() == "");
    // A cancelled splice of much more shows how much one pipe takes.
    FdPair full = unix_pair();
    fill(full.one.get());
    FdPair from = tcp_pair();
    Feeder feeder(std::move(from.other), pattern(0, std::size_t{4} << 20));
    std::error_code ec;
    auto r = zc::transfer(from.one, full.one, {.strategy = Strategy::splice, .deadline = Clock::now() + 300ms}, ec);
    CHECK(r.stranded);
    from.one.reset();
    int largest = 0;
    for (int fd = 3; fd < 256; ++fd) largest = std::max(largest, ::fcntl(fd, F_GETPIPE_SZ));
    CHECK(largest == pipe_size_allowed());
  });
}

TEST_CASE("pooled pipes do not survive exec") {
  in_thread([] {
    CHECK(clean_splice() == "");
    for (int fd = 3; fd < 256; ++fd)
      if (::fcntl(fd, F_GETPIPE_SZ) == pipe_size_allowed()) CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
  });
}

TEST_CASE("a child after fork does not use its parent's pooled pipe, and the parent's stays whole") {
  std::string wrong;
  in_thread([&] {
    CHECK(clean_splice() == "");
    const auto parents = open_pipes();
    wrong = in_child([&] {
      Wrong w;
      const auto inherited = open_pipes();
      const std::string first = clean_splice();
      w.unless(first.empty(), first);
      const auto mine = open_pipes();
      // None of the pipes that the child's transfers keep is one of the parent's.
      std::size_t fresh = 0;
      for (const std::string& pipe : mine) fresh += inherited.count(pipe) == 0 ? 1 : 0;
      w.unless(fresh == 2, "the child keeps " + std::to_string(fresh) + " descriptors of new pipes");
      return w.text();
    });
    CHECK(wrong == "");
    CHECK(open_pipes() == parents);
    CHECK(clean_splice() == "");
  });
}

TEST_CASE("a child forked while the parent has bytes stranded: both can deliver their own") {
  FdPair full = unix_pair();
  fill(full.one.get());
  auto r = cancelled_splice(false, 0, full);
  REQUIRE(r.stranded);
  const std::string wrong = in_child([] { return clean_splice(); });
  CHECK(wrong == "");
  Bytes bytes(r.stranded->size());
  CHECK(zc::transfer(*r.stranded, std::span(bytes)).delivered == bytes.size());
  CHECK(same(bytes, pattern(0, bytes.size())));
}

TEST_CASE("stranded bytes may be delivered, or dropped, in another thread") {
  FdPair full = unix_pair();
  fill(full.one.get());
  const std::size_t before = open_descriptors();
  for (const bool deliver : {true, false}) {
    std::optional<zc::Stranded> stranded;
    in_thread([&] {
      auto r = cancelled_splice(false, 0, full);
      REQUIRE(r.stranded);
      stranded = std::move(*r.stranded);
    });
    in_thread([&] {
      if (deliver) {
        Bytes bytes(stranded->size());
        CHECK(zc::transfer(*stranded, std::span(bytes)).delivered == bytes.size());
        CHECK(same(bytes, pattern(0, bytes.size())));
      }
      stranded.reset();
      CHECK(clean_splice() == "");
    });
  }
  CHECK(open_descriptors() == before);
}
