// tests/support/detached_mount.hpp: small file systems that are never attached to any folder: a descriptor is all there is.
// The kernel unmounts them, and lets the loop device go, when the last descriptor closes: nothing stays behind, even
// if the test is killed.
#pragma once

#include "support/ends.hpp"

#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/wait.h>

#include <memory>

namespace ends {

// A mounted file system. `ok()` is false where this process may not mount, or the tools for the type are missing;
// `why()` then says so.
class DetachedMount {
 public:
  // An image of `mebibytes` in memory, formatted by mkfs.<type>, through a loop device.
  static DetachedMount image(const std::string& type, int mebibytes) {
    DetachedMount mount;
    const zc::OwnedFd image(checked(::memfd_create("image", MFD_CLOEXEC), "memfd_create"));
    checked(::ftruncate(image.get(), off_t{mebibytes} << 20), "ftruncate");
    const zc::OwnedFd device = formatted(type, image.get()) ? loop_device(image.get(), mount) : zc::OwnedFd();
    if (!device) {
      if (mount.why_.empty()) mount.why_ = "skipped: no mkfs." + type;
      return mount;
    }
    mount.attach(type, {{"source", "/dev/loop" + std::to_string(mount.loop_)}});
    return mount;
  }
  static DetachedMount of(const std::string& type, const std::vector<std::pair<std::string, std::string>>& options) {
    DetachedMount mount;
    mount.attach(type, options);
    return mount;
  }

  [[nodiscard]] bool ok() const { return static_cast<bool>(root_); }
  [[nodiscard]] const std::string& why() const { return why_; }
  // Where a path may be used instead of a descriptor, by this process.
  [[nodiscard]] std::string path() const { return "/proc/self/fd/" + std::to_string(root_.get()); }

  [[nodiscard]] zc::OwnedFd open(const std::string& name, int flags) const {
    return zc::OwnedFd(checked(::openat(root_.get(), name.c_str(), flags | O_CLOEXEC, 0600), name.c_str()));
  }
  // A file without a name that holds `bytes`, at position 0.
  [[nodiscard]] zc::OwnedFd temporary(std::span<const std::byte> bytes = {}, int flags = 0) const {
    zc::OwnedFd fd = open(".", O_TMPFILE | O_RDWR | flags);
    pwrite_all(fd.get(), bytes, 0);
    return fd;
  }

  // Takes all the room but about `bytes`, for as long as the descriptor lives.
  [[nodiscard]] zc::OwnedFd leave_only(std::uint64_t bytes) const {
    zc::OwnedFd filler = open(".", O_TMPFILE | O_RDWR);
    off_t size = 0;
    for (off_t step = off_t{64} << 20; step >= 4096; step /= 2)
      while (::fallocate(filler.get(), 0, size, step) == 0) size += step;
    checked(::ftruncate(filler.get(), std::max<off_t>(0, size - static_cast<off_t>(bytes))), "ftruncate");
    checked(::syncfs(filler.get()), "syncfs");
    return filler;
  }

 private:
  static bool formatted(const std::string& type, int image) {
    const pid_t child = checked(::fork(), "fork");
    if (child == 0) {
      const int null = ::open("/dev/null", O_RDWR);
      ::dup2(null, 1);
      ::dup2(null, 2);
      ::fcntl(image, F_SETFD, 0);
      const std::string file = "/proc/self/fd/" + std::to_string(image);
      const std::string program = "mkfs." + type;
      for (const char* folder : {"/sbin/", "/usr/sbin/", "/usr/bin/"}) {
        const std::string path = folder + program;
        if (type == "ext4") ::execl(path.c_str(), program.c_str(), "-q", "-F", "-m", "0", file.c_str(), nullptr);
        ::execl(path.c_str(), program.c_str(), "-q", "-f", file.c_str(), nullptr);
      }
      ::_exit(127);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return status == 0;
  }
  static zc::OwnedFd loop_device(int image, DetachedMount& mount) {
    const zc::OwnedFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    for (int tries = 0; control && tries < 20; ++tries) {  // another process can be faster
      mount.loop_ = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
      zc::OwnedFd device(::open(("/dev/loop" + std::to_string(mount.loop_)).c_str(), O_RDWR | O_CLOEXEC));
      loop_config config{};
      config.fd = static_cast<std::uint32_t>(image);
      config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
      if (device && ::ioctl(device.get(), LOOP_CONFIGURE, &config) == 0) return device;
      if (!device || errno != EBUSY) break;
    }
    mount.why_ = std::string("skipped: no loop device: ") + std::strerror(errno);
    return {};
  }
  void attach(const std::string& type, const std::vector<std::pair<std::string, std::string>>& options) {
    const zc::OwnedFd context(::fsopen(type.c_str(), FSOPEN_CLOEXEC));
    bool good = static_cast<bool>(context);
    for (const auto& [key, value] : options) {
      if (good) good = ::fsconfig(context.get(), FSCONFIG_SET_STRING, key.c_str(), value.c_str(), 0) == 0;
    }
    if (good && ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0)
      root_.reset(::fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
    if (!root_) why_ = "skipped: can't mount " + type + ": " + std::strerror(errno);
  }

  int loop_ = -1;
  zc::OwnedFd root_;
  std::string why_;
};

}  // namespace ends
