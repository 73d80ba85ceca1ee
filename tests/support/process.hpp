// tests/support/process.hpp: what needs a process or a mount of its own: children with limits, users, filters and small
// disks that fill up. A child ends by itself when it hangs.
#pragma once

#include "support/ends.hpp"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <grp.h>

namespace ends {

// Ends the program when a test hangs; SIGALRM kills, and the test runner says which test it was.
class TimeLimit {
 public:
  explicit TimeLimit(unsigned seconds = 60) { ::alarm(seconds); }
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;
  ~TimeLimit() { ::alarm(0); }
};

// Runs `f` in a child process. `f` returns what is wrong, empty if nothing; so does this function.
template <class F>
std::string in_child(F f) {
  FdPair report = pipe_pair();
  const pid_t child = checked(::fork(), "fork");
  if (child == 0) {
    ::alarm(30);
    std::string wrong;
    try {
      wrong = f();
    } catch (const std::exception& e) {
      wrong = std::string("thrown: ") + e.what();
    }
    std::ignore = ::write(report.other.get(), wrong.data(), std::min<std::size_t>(wrong.size(), 4000));
    ::_exit(0);
  }
  report.other.reset();
  std::string wrong;
  for (std::array<char, 4096> block;;) {
    const ssize_t n = ::read(report.one.get(), block.data(), block.size());
    if (n <= 0) break;
    wrong.append(block.data(), static_cast<std::size_t>(n));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) wrong += " killed by signal " + std::to_string(WTERMSIG(status));
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) wrong += " exit " + std::to_string(WEXITSTATUS(status));
  return wrong;
}

// What is wrong in a child, line by line.
class Wrong {
 public:
  void unless(bool holds, const std::string& what) {
    if (!holds) text_ += what + "; ";
  }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
};

inline bool is_root() { return ::geteuid() == 0; }

// Becomes nobody for good; for a child.
inline void become_nobody() {
  checked(::setgroups(0, nullptr), "setgroups");
  checked(::setresgid(65534, 65534, 65534), "setresgid");
  checked(::setresuid(65534, 65534, 65534), "setresuid");
}

// Makes these system calls fail with `error` from now on, in every thread; for a child.
inline void refuse(const std::vector<long>& calls, int error) {
  std::vector<sock_filter> program;
  program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0));  // seccomp_data.nr
  for (const long call : calls) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  checked(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
  const long done = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
  checked(static_cast<int>(done), "seccomp");
}

// A file system of its own, unmounted at the end. `ok()` is false where this process may not mount, or the tools for
// the type are missing; `why()` then says so.
class Mount {
 public:
  static Mount tmpfs(const std::string& options) { return Mount("tmpfs", options); }
  // An image of `mebibytes`, formatted by mkfs.<type>, through a loop device.
  static Mount image(const std::string& type, int mebibytes) { return Mount(type, mebibytes); }

  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;
  ~Mount() {
    if (ok_) ::umount2(path().c_str(), MNT_DETACH);
    ::unlink(image_.c_str());
    ::rmdir(path().c_str());
  }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] const std::string& why() const { return why_; }
  [[nodiscard]] std::string path() const { return dir_.path() + "/mount"; }

 private:
  Mount(const char* type, const std::string& options) {
    ::mkdir(path().c_str(), 0755);
    ok_ = ::mount("none", path().c_str(), type, 0, options.c_str()) == 0;
    if (!ok_) why_ = std::string("skipped: can't mount ") + type + ": " + std::strerror(errno);
  }
  Mount(const std::string& type, int mebibytes) : image_(dir_.path() + "/image") {
    ::mkdir(path().c_str(), 0755);
    const zc::OwnedFd file(checked(::open(image_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600), "open"));
    checked(::ftruncate(file.get(), off_t{mebibytes} << 20), "ftruncate");
    const std::string quiet = " >/dev/null 2>&1";
    ok_ = std::system(("PATH=$PATH:/sbin:/usr/sbin mkfs." + type + " -q " + image_ + quiet).c_str()) == 0 &&
          std::system(("PATH=$PATH:/sbin:/usr/sbin mount -o loop " + image_ + " " + path() + quiet).c_str()) == 0;
    if (!ok_) why_ = "skipped: can't make and mount a " + type + " image (root, mkfs." + type + " and loop devices)";
  }

  TempDir dir_;
  std::string image_;
  bool ok_ = false;
  std::string why_;
};

}  // namespace ends
