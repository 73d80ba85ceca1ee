// Clones inside one file system and across two, and sparse files, on ext4, xfs and btrfs.
#include "catch.hpp"
#include "support/detached_mount.hpp"
#include "support/moves.hpp"
#include "support/process.hpp"

using namespace ends;
using zc::Errc;
using zc::StopReason;
using zc::Strategy;

namespace {

struct Disks {
  DetachedMount ext4 = DetachedMount::image("ext4", 32);
  DetachedMount xfs = DetachedMount::image("xfs", 320);
  DetachedMount btrfs = DetachedMount::image("btrfs", 128);
  DetachedMount tmpfs = DetachedMount::of("tmpfs", {{"size", "64m"}});

  [[nodiscard]] std::vector<std::pair<std::string, const DetachedMount*>> present() const {
    std::vector<std::pair<std::string, const DetachedMount*>> all;
    for (const auto& [name, disk] : {std::pair{"ext4", &ext4}, {"xfs", &xfs}, {"btrfs", &btrfs}, {"tmpfs", &tmpfs}}) {
      if (disk->ok()) {
        all.emplace_back(name, disk);
      } else {
        WARN(disk->why());
      }
    }
    return all;
  }
};

std::uint64_t free_bytes(int fd) {
  struct statfs now {};
  checked(::syncfs(fd), "syncfs");
  checked(::fstatfs(fd, &now), "fstatfs");
  return static_cast<std::uint64_t>(now.f_bavail) * static_cast<std::uint64_t>(now.f_bsize);
}

}  // namespace

TEST_CASE("reflink forced across file systems: an error and nothing made; automatic: copied", "[filesystem][reflink]") {
  const TimeLimit limit(60);
  const Disks disks;
  for (const auto& [from_name, from_disk] : disks.present()) {
    for (const auto& [to_name, to_disk] : disks.present()) {
      const bool can = from_disk == to_disk && (from_name == "xfs" || from_name == "btrfs");
      for (const std::size_t size : {std::size_t{1}, std::size_t{4096}, std::size_t{1'000'001}}) {
        INFO(from_name << " to " << to_name << ", " << size);
        const zc::File from(from_disk->temporary(pattern(0, size)));
        const zc::File to(to_disk->temporary());
        std::error_code ec;
        const auto r = zc::transfer(from, to, {.strategy = Strategy::reflink}, ec);
        CHECK(!ec == can);
        CHECK(r.delivered == (can ? size : 0));
        CHECK(from.position() == r.delivered);
        CHECK(to.position() == r.delivered);
        CHECK(to.size() == r.delivered);
        if (can) {
          CHECK(r.strategy == Strategy::reflink);
          CHECK(same(pread_all(to.as_fd().get()), pattern(0, size)));
        } else {
          CHECK(ec == Errc::strategy_unavailable);
          CHECK(r.reason == StopReason::failed);
          REQUIRE(r.trail.begin() != r.trail.end());
          CHECK((*r.trail.begin()).strategy == Strategy::reflink);
          CHECK((*r.trail.begin()).error);
        }
        const zc::File plain(to_disk->temporary(pattern(size, 10)));
        const auto all = zc::transfer(from.range(0), plain, ec);
        CHECK_FALSE(ec);
        CHECK(all.delivered == size);
        const Bytes now = pread_all(plain.as_fd().get());
        REQUIRE(now.size() == std::max<std::size_t>(size, 10));
        CHECK(same(std::span(now).first(size), pattern(0, size)));
        CHECK(same(std::span(now).subspan(size), pattern(size, 10).subspan(std::min<std::size_t>(size, 10))));
      }
    }
  }
}

TEST_CASE("a clone takes no room, and its copy is independent of the source", "[filesystem][reflink]") {
  const TimeLimit limit(60);
  const Disks disks;
  for (const auto& [name, disk] : disks.present()) {
    if (name != "xfs" && name != "btrfs") continue;
    for (const MaybeStrategy strategy : {MaybeStrategy{}, MaybeStrategy{Strategy::reflink}}) {
      const std::size_t size = std::size_t{8} << 20;
      const zc::File from(disk->temporary(pattern(0, size)));
      const zc::File to(disk->temporary());
      const std::uint64_t before = free_bytes(from.as_fd().get());
      Moved moved;
      moved.result = zc::transfer(from, to, {.strategy = strategy}, moved.error);
      INFO(name << ", " << name_of(strategy) << ": " << moved.text());
      CHECK_FALSE(moved.error);
      CHECK(moved.result.delivered == size);
      CHECK(before - std::min(before, free_bytes(from.as_fd().get())) < size / 4);
      pwrite_all(from.as_fd().get(), pattern(1, 100'000), 4096);
      CHECK(same(pread_all(to.as_fd().get()), pattern(0, size)));
    }
  }
}

TEST_CASE("a clone that can't be aligned leaves what was there, and automatic copies it", "[filesystem][reflink]") {
  const TimeLimit limit(60);
  const Disks disks;
  for (const auto& [name, disk] : disks.present()) {
    if (name != "xfs" && name != "btrfs") continue;
    INFO(name);
    const zc::File from(disk->temporary(pattern(0, 200'000)));
    for (const std::uint64_t start : {1U, 511U, 4095U}) {
      const zc::File to(disk->temporary(pattern(300'000, 50'000)));
      std::error_code ec;
      const auto r = zc::transfer(from.range(start), to.range(start), {.strategy = Strategy::reflink}, ec);
      CHECK(ec == Errc::strategy_unavailable);
      CHECK(r.delivered == 0);
      CHECK(same(pread_all(to.as_fd().get()), pattern(300'000, 50'000)));
      // Automatic: the same request is copied.
      const auto copied = zc::transfer(from.range(start), to.range(start), ec);
      CHECK_FALSE(ec);
      CHECK(copied.delivered == 200'000 - start);
      CHECK(same(pread_all(to.as_fd().get(), start), pattern(start, 200'000 - start)));
    }
  }
}

TEST_CASE("sparse files are copied right, holes at the head, in the middle and at the end", "[filesystem][sparse]") {
  const TimeLimit limit(60);
  const Disks disks;
  const std::size_t size = 3'000'001;
  Bytes expected(size);
  const std::pair<std::size_t, std::size_t> data[] = {{100'000, 5'000}, {1'048'576, 65'536}, {2'000'001, 100'000}};
  for (const auto& [at, n] : data) std::ranges::copy(pattern(at, n), expected.begin() + static_cast<long>(at));
  for (const auto& [from_name, from_disk] : disks.present()) {
    for (const auto& [to_name, to_disk] : disks.present()) {
      const zc::File from(from_disk->temporary());
      checked(::ftruncate(from.as_fd().get(), off_t{size}), "ftruncate");
      for (const auto& [at, n] : data) pwrite_all(from.as_fd().get(), pattern(at, n), at);
      for (const MaybeStrategy& strategy : file_strategies()) {
        if (strategy == Strategy::send_zerocopy) continue;
        for (const bool old : {false, true}) {
          // What stood in the sink shows through no hole.
          const zc::File to(to_disk->temporary(old ? pattern(7, size + 10) : pattern(0, 0)));
          Moved moved;
          moved.result = zc::transfer(from.range(0), to, {.strategy = strategy}, moved.error);
          INFO(from_name << " to " << to_name << (old ? ", over old bytes, " : ", ") << name_of(strategy) << ": "
                         << moved.text());
          if (strategy && moved.is_unavailable()) {
            CHECK(moved.result.delivered == 0);
            continue;
          }
          CHECK_FALSE(moved.error);
          CHECK(moved.result.delivered == size);
          const Bytes now = pread_all(to.as_fd().get());
          REQUIRE(now.size() == (old ? size + 10 : size));
          CHECK(same(std::span(now).first(size), expected));
          if (old) CHECK(same(std::span(now).subspan(size), pattern(7 + size, 10)));
        }
      }
    }
  }
}

TEST_CASE("2 GiB + 1 KiB, sparse with data at its end, arrives whole on xfs and btrfs", "[filesystem][sparse]") {
  const TimeLimit limit(60);
  const Disks disks;
  const std::uint64_t size = (std::uint64_t{2} << 30) + 1024;
  for (const auto& [name, disk] : disks.present()) {
    if (name != "xfs" && name != "btrfs") continue;
    for (const MaybeStrategy strategy : {MaybeStrategy{}, MaybeStrategy{Strategy::reflink}}) {
      const zc::File from(disk->temporary());
      checked(::ftruncate(from.as_fd().get(), static_cast<off_t>(size)), "ftruncate");
      pwrite_all(from.as_fd().get(), pattern(0, 1000), size - 1000);
      pwrite_all(from.as_fd().get(), pattern(5000, 1000), std::uint64_t{1} << 30);
      const zc::File to(disk->temporary());
      Moved moved;
      moved.result = zc::transfer(from, to, {.strategy = strategy}, moved.error);
      INFO(name << ", " << name_of(strategy) << ": " << moved.text());
      CHECK_FALSE(moved.error);
      CHECK(moved.result.delivered == size);
      CHECK(to.size() == size);
      CHECK(from.position() == size);
      CHECK(to.position() == size);
      CHECK(same(pread_all(to.as_fd().get(), size - 1000), pattern(0, 1000)));
      Bytes middle(3000);
      REQUIRE(::pread(to.as_fd().get(), middle.data(), middle.size(), (off_t{1} << 30) - 1000) == 3000);
      CHECK(same(std::span(middle).subspan(1000, 1000), pattern(5000, 1000)));
      CHECK(same(std::span(middle).first(1000), Bytes(1000)));
    }
  }
}

TEST_CASE("the bytes around 2 GiB arrive at every sink by every strategy", "[filesystem][sparse]") {
  const TimeLimit limit(60);
  const std::uint64_t size = (std::uint64_t{2} << 30) + 1024;
  const zc::File from{temporary_file()};
  checked(::ftruncate(from.as_fd().get(), static_cast<off_t>(size)), "ftruncate");
  pwrite_all(from.as_fd().get(), pattern(0, 1000), size - 1000);
  // From 1 MiB before the border of 2 GiB on: cheap, and over every sign bit.
  for (const To to : {To::file, To::tcp, To::pipe, To::memory}) {
    for (const MaybeStrategy& strategy : file_strategies()) {
      const std::uint64_t start = (std::uint64_t{2} << 30) - 1'000'000;
      const Moved moved = move_to(to, from.range(start), {.strategy = strategy});
      INFO(name_of(to) << ", " << name_of(strategy) << ": " << moved.text());
      if (strategy && moved.is_unavailable()) continue;
      CHECK_FALSE(moved.error);
      REQUIRE(moved.got.size() == size - start);
      CHECK(same(std::span(moved.got).last(1000), pattern(0, 1000)));
      CHECK(same(std::span(moved.got).first(1'000'024), Bytes(1'000'024)));
    }
  }
}
