#include <zerocopy/mapped_file.hpp>

#include "catch.hpp"
#include "handle_checks.hpp"

#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace zc = zerocopy;
using checks::bytes_of, checks::pattern, checks::stale, checks::text_of, checks::thrown_by;

namespace {
template <class T>
concept lends_a_descriptor = requires(T t) { std::forward<T>(t).as_fd(); };

const std::size_t page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));

void store(std::span<std::byte> to, std::string_view text) {
  std::copy_n(bytes_of(text).begin(), text.size(), to.begin());
}
}  // namespace

TEST_CASE("MappedFile::open shows the whole file", "[mapped_file]") {
  checks::Directory dir;
  const std::string path = dir.file("a");
  const std::string text = pattern(3 * page + 17);
  checks::write_whole(path, text);
  const auto mapped = zc::MappedFile::open(path);
  CHECK(mapped.size() == text.size());
  CHECK_FALSE(mapped.empty());
  CHECK(text_of(mapped.bytes()) == text);
  CHECK(mapped.file_offset() == 0);
  CHECK(mapped.mapping() == zc::Mapping::shared);
  CHECK(checks::closes_on_exec(mapped.as_fd().get()));

  std::error_code ec = stale();
  CHECK(text_of(zc::MappedFile::open(path, ec).bytes()) == text);
  CHECK_FALSE(ec);
  const auto populated = zc::MappedFile::open(path, {.mapping = zc::Mapping::private_copy, .populate = true}, ec);
  CHECK(text_of(populated.bytes()) == text);
  CHECK(populated.mapping() == zc::Mapping::private_copy);
}

TEST_CASE("Offset and length of a mapping need not be page-aligned", "[mapped_file]") {
  const auto file = zc::File::temporary();
  const std::string text = pattern(4 * page);
  REQUIRE(checks::put(file.as_fd().get(), text));
  for (const std::size_t offset : {std::size_t{0}, std::size_t{1}, page - 1, page, page + 1, 3 * page + 100}) {
    for (const std::size_t length : {std::size_t{1}, std::size_t{99}, page - 100}) {
      const auto mapped = zc::MappedFile::map(file.range(offset, length));
      REQUIRE(text_of(mapped.bytes()) == text.substr(offset, length));
      CHECK(mapped.file_offset() == offset);
      const auto writable = zc::WritableMappedFile::map(file.range(offset, length));
      CHECK(text_of(writable.bytes()) == text.substr(offset, length));
      CHECK(writable.file_offset() == offset);
    }
    CHECK(text_of(zc::MappedFile::map(file.range(offset)).bytes()) == text.substr(offset));
  }
  CHECK(file.position() == text.size());
}

TEST_CASE("An empty file and an empty range map to an empty span", "[mapped_file]") {
  auto file = zc::File::temporary();
  const auto empty = zc::MappedFile::map(file);
  CHECK(empty.empty());
  CHECK(empty.bytes().empty());
  CHECK(static_cast<bool>(empty.as_fd()));
  empty.advise(zc::Advice::sequential);
  const auto writable = zc::WritableMappedFile::map(file);
  CHECK(writable.empty());
  CHECK(writable.size() == 0);
  writable.sync();
  writable.advise(zc::Advice::random);

  file.resize(10);
  CHECK(zc::MappedFile::map(file.range(10)).empty());
  CHECK(zc::MappedFile::map(file.range(3, 0)).empty());
  CHECK(zc::MappedFile::map(file.range(3, 0)).file_offset() == 3);
  CHECK(empty.empty());  // a mapping never grows with its file
}

TEST_CASE("A range beyond the end is invalid, and the error names the size", "[mapped_file]") {
  auto file = zc::File::temporary();
  file.resize(5000);
  const auto beyond = thrown_by([&] { (void)zc::MappedFile::map(file.range(4096, 905)); });
  CHECK(beyond.code == std::errc::invalid_argument);
  CHECK(beyond.says("905 bytes at offset 4096"));
  CHECK(beyond.says("which has 5000 bytes"));
  CHECK(zc::MappedFile::map(file.range(4096, 904)).size() == 904);
  std::error_code ec;
  const auto nothing = zc::MappedFile::map(file.range(5001), ec);
  CHECK(ec == std::errc::invalid_argument);
  CHECK(nothing.empty());
  CHECK_FALSE(static_cast<bool>(nothing.as_fd()));
  (void)zc::WritableMappedFile::map(file.range(5000, 1), ec);
  CHECK(ec == std::errc::invalid_argument);
  (void)zc::MappedFile::map(file.range(1, INT64_MAX), ec);
  CHECK(ec == zc::Errc::offset_overflow);
  (void)zc::MappedFile::map(file.range(UINT64_MAX - 1), ec);
  CHECK(ec == zc::Errc::offset_overflow);
}

TEST_CASE("What can't be mapped says why", "[mapped_file]") {
  CHECK(thrown_by([] { (void)zc::MappedFile::open("/tmp"); }).code == std::errc::is_a_directory);
  CHECK(thrown_by([] { (void)zc::MappedFile::open("/dev/null"); }).code == std::errc::no_such_device);
  const auto missing = thrown_by([] { (void)zc::MappedFile::open("/tmp/zerocopy-none"); });
  CHECK(missing.code == std::errc::no_such_file_or_directory);
  CHECK(missing.says("map '/tmp/zerocopy-none'"));
  CHECK(thrown_by([] { (void)zc::WritableMappedFile::open("/tmp/zerocopy-none"); }).code ==
        std::errc::no_such_file_or_directory);
  const zc::File closed{zc::OwnedFd()};
  CHECK(thrown_by([&] { (void)zc::MappedFile::map(closed); }).code == std::errc::bad_file_descriptor);
  std::error_code ec;
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const zc::OwnedFd keep(ends[1]);
  const zc::OwnedFd pipe(ends[0]);
  (void)zc::MappedFile::map(zc::FileRange(pipe.as_fd(), 0, 10), ec);
  CHECK(ec == std::errc::no_such_device);

  checks::Directory dir;
  const std::string path = dir.file("a");
  checks::write_whole(path, "bytes");
  const auto write_only = zc::File::open(path, {.access = zc::Access::write});
  (void)zc::MappedFile::map(write_only, ec);
  CHECK(ec == std::errc::permission_denied);
  const auto read_only = zc::File::open(path);
  (void)zc::WritableMappedFile::map(read_only, ec);
  CHECK(ec == std::errc::permission_denied);
  const auto thrown = thrown_by([&] { (void)zc::WritableMappedFile::map(read_only); });
  CHECK(thrown.code == std::errc::permission_denied);
  CHECK(thrown.says("to write"));
}

TEST_CASE("A mapping that can't be had leaves no descriptor behind", "[mapped_file]") {
  auto file = zc::File::temporary();
  file.resize(1);
  const int before = ::fcntl(file.as_fd().get(), F_DUPFD_CLOEXEC, 0);
  ::close(before);
  std::error_code ec;
  (void)zc::MappedFile::map(file.range(2), ec);
  (void)zc::WritableMappedFile::map(zc::File::open("/etc/hostname"), ec);
  const int after = ::fcntl(file.as_fd().get(), F_DUPFD_CLOEXEC, 0);
  ::close(after);
  CHECK(before == after);
}

TEST_CASE("Without a free descriptor number a mapping reports too_many_files_open", "[mapped_file]") {
  auto file = zc::File::temporary();
  file.resize(1);
  rlimit old{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &old) == 0);
  rlimit low = old;
  low.rlim_cur = 0;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &low) == 0);
  std::error_code ec;
  const auto mapped = zc::MappedFile::map(file, ec);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &old) == 0);
  // fcntl(F_DUPFD) says EINVAL when the lowest number asked for is past the limit.
  CHECK((ec == std::errc::too_many_files_open || ec == std::errc::invalid_argument));
  CHECK(mapped.empty());
}

TEST_CASE("Stores through a shared mapping reach the file and other mappings", "[mapped_file]") {
  checks::Directory dir;
  const std::string path = dir.file("a");
  checks::write_whole(path, pattern(2 * page));
  {
    const auto writable = zc::WritableMappedFile::open(path);
    const auto reading = zc::MappedFile::open(path);
    store(writable.bytes().subspan(page - 2), "over");
    writable.sync();
    CHECK(text_of(reading.bytes().subspan(page - 2, 4)) == "over");
    std::error_code ec = stale();
    writable.sync(ec);
    CHECK_FALSE(ec);
  }
  std::string expected = pattern(2 * page);
  expected.replace(page - 2, 4, "over");
  CHECK(checks::read_whole(path) == expected);
}

TEST_CASE("sync works on a mapping that begins inside a page", "[mapped_file]") {
  auto file = zc::File::temporary();
  file.resize(3 * page);
  const auto writable = zc::WritableMappedFile::map(file.range(page + 5, 10));
  store(writable.bytes(), "0123456789");
  writable.sync();
  file.seek(page + 4);
  CHECK(checks::take(file.as_fd().get(), 12) == std::string("\0"
                                                            "0123456789\0",
                                                            12));
}

TEST_CASE("Stores through a private mapping stay there, whatever is advised", "[mapped_file]") {
  checks::Directory dir;
  const std::string path = dir.file("a");
  checks::write_whole(path, "original");
  ::chmod(path.c_str(), 0400);
  const auto file = zc::File::open(path);  // read access is enough
  const auto writable = zc::WritableMappedFile::map(file, {.mapping = zc::Mapping::private_copy});
  store(writable.bytes(), "PRIVATE");
  writable.sync();
  for (const auto advice : {zc::Advice::normal, zc::Advice::sequential, zc::Advice::random, zc::Advice::will_need,
                            zc::Advice::dont_need, zc::Advice::no_reuse}) {
    writable.advise(advice);
  }
  CHECK(text_of(writable.bytes()) == "PRIVATEl");
  CHECK(checks::read_whole(path) == "original");
  CHECK(writable.mapping() == zc::Mapping::private_copy);
}

TEST_CASE("Advice on a shared mapping never changes the bytes", "[mapped_file]") {
  auto file = zc::File::temporary();
  file.resize(2 * page);
  const auto writable = zc::WritableMappedFile::map(file);
  store(writable.bytes(), "kept");
  std::error_code ec = stale();
  writable.advise(zc::Advice::dont_need, ec);
  CHECK_FALSE(ec);
  CHECK(text_of(writable.bytes().first(4)) == "kept");
  const auto reading = zc::MappedFile::map(file.range(1));
  reading.advise(zc::Advice::dont_need);
  reading.advise(zc::Advice::will_need, ec);
  CHECK_FALSE(ec);
  CHECK(text_of(reading.bytes().first(3)) == "ept");
}

TEST_CASE("WritableMappedFile::create makes a file of that size, with its room on the disk", "[mapped_file]") {
  checks::Directory dir;
  const std::string path = dir.file("made");
  checks::write_whole(path, "older and longer than what follows");
  {
    const auto writable = zc::WritableMappedFile::create(path, 10);
    CHECK(text_of(writable.bytes()) == std::string(10, '\0'));
    store(writable.bytes(), "0123456789");
  }
  CHECK(checks::read_whole(path) == "0123456789");
  const auto large = zc::WritableMappedFile::create(path, 64 * page);
  struct stat status {};
  REQUIRE(::fstat(large.as_fd().get(), &status) == 0);
  CHECK(status.st_size == static_cast<off_t>(64 * page));
  CHECK(status.st_blocks * 512 >= status.st_size);

  std::error_code ec = stale();
  CHECK(zc::WritableMappedFile::create(path, 0, ec).empty());
  CHECK_FALSE(ec);
  CHECK(checks::read_whole(path).empty());
  (void)zc::WritableMappedFile::create(dir.path() + "/none/a", 10, ec);
  CHECK(ec == std::errc::no_such_file_or_directory);
  const auto too_large = thrown_by([&] { (void)zc::WritableMappedFile::create(path, UINT64_MAX); });
  CHECK(too_large.code == std::errc::file_too_large);
  CHECK(too_large.says("make and map '" + path));
}

TEST_CASE("WritableMappedFile::create on a file system that is too small says so, not SIGBUS", "[mapped_file]") {
  std::error_code ec;
  checks::Directory dir;
  const auto file = zc::WritableMappedFile::create(dir.file("a"), 1ULL << 50, ec);
  CHECK((ec == std::errc::no_space_on_device || ec == std::errc::file_too_large));
  CHECK(file.empty());
}

TEST_CASE("A mapping outlives the File and sees its size", "[mapped_file]") {
  auto file = std::make_unique<zc::File>(zc::File::temporary());
  REQUIRE(checks::put(file->as_fd().get(), "outlives"));
  const auto mapped = zc::MappedFile::map(*file);
  const auto from_temporary = zc::MappedFile::map(zc::File::open("/etc/hostname"));
  CHECK(mapped.as_fd().get() != file->as_fd().get());
  file.reset();
  CHECK(text_of(mapped.bytes()) == "outlives");
  struct stat status {};
  REQUIRE(::fstat(mapped.as_fd().get(), &status) == 0);
  CHECK(status.st_size == 8);
  CHECK(text_of(from_temporary.bytes()) == checks::read_whole("/etc/hostname"));
}

TEST_CASE("A mapping that moves takes its pages along, and they go with it", "[mapped_file]") {
  const auto file = zc::File::temporary();
  REQUIRE(checks::put(file.as_fd().get(), pattern(page)));
  auto first = zc::WritableMappedFile::map(file.range(7));
  std::byte* const at = first.bytes().data();
  const int number = first.as_fd().get();
  auto second = std::move(first);
  CHECK(first.empty());
  CHECK(first.bytes().data() == nullptr);
  CHECK(second.bytes().data() == at);
  CHECK(second.file_offset() == 7);
  CHECK(second.as_fd().get() == number);
  auto other = zc::WritableMappedFile::map(file);
  const int replaced = other.as_fd().get();
  other = std::move(second);
  CHECK_FALSE(checks::is_open(replaced));
  CHECK(text_of(other.bytes()) == pattern(page).substr(7));
  auto& itself = other;
  other = std::move(itself);
  CHECK(other.bytes().data() == at);

  auto* const pages = reinterpret_cast<unsigned char*>(at) - 7;
  unsigned char resident = 0;
  CHECK(::mincore(pages, page, &resident) == 0);
  { const auto dying = std::move(other); }
  CHECK_FALSE(checks::is_open(number));
  CHECK(::mincore(pages, page, &resident) == -1);
  CHECK(errno == ENOMEM);  // unmapped
  STATIC_REQUIRE(std::is_nothrow_move_constructible_v<zc::MappedFile>);
  STATIC_REQUIRE(std::is_nothrow_move_assignable_v<zc::MappedFile>);
  STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<zc::MappedFile>);
  STATIC_REQUIRE_FALSE(lends_a_descriptor<zc::MappedFile>);
  STATIC_REQUIRE_FALSE(lends_a_descriptor<zc::WritableMappedFile>);
}

TEST_CASE("A MemoryFile maps like a File, a sealed one to read only", "[mapped_file][memory_file]") {
  auto file = zc::MemoryFile::create("mapped", 6);
  {
    const auto writable = zc::WritableMappedFile::map(file);
    store(writable.bytes(), "memory");
  }
  CHECK(text_of(zc::MappedFile::map(file).bytes()) == "memory");
  CHECK(text_of(zc::MappedFile::map(file.range(2, 3)).bytes()) == "mor");
  file.seal();
  std::error_code ec = stale();
  CHECK(text_of(zc::MappedFile::map(file, ec).bytes()) == "memory");
  CHECK_FALSE(ec);
  CHECK(text_of(zc::MappedFile::map(file, {.mapping = zc::Mapping::private_copy}, ec).bytes()) == "memory");
  (void)zc::WritableMappedFile::map(file, ec);
  CHECK(ec == std::errc::operation_not_permitted);
  const auto own = zc::WritableMappedFile::map(file, {.mapping = zc::Mapping::private_copy}, ec);
  CHECK_FALSE(ec);
  store(own.bytes(), "M");
  CHECK(text_of(own.bytes()) == "Memory");
}
