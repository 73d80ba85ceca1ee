// copy_file: copies one file, like cp: shares the blocks where the file system can, else lets the kernel copy.
//
//   copy_file FROM TO
//
// TO is not emptied first: that would lose the data if it is another name of FROM, which transfer() refuses with both
// files as they were. What TO had beyond the copy is cut off afterwards.
#include <zerocopy/format.hpp>
#include <zerocopy/zerocopy.hpp>

#include <fmt/format.h>

#include <sys/stat.h>  // the permissions of a new file

#include <exception>

namespace zc = zerocopy;

namespace {

mode_t permissions(const zc::File& file) {
  struct stat status {};
  return ::fstat(file.as_fd().get(), &status) == 0 ? status.st_mode & 0777 : 0666;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fmt::print(stderr, "usage: copy_file FROM TO\n");
    return 2;
  }
  try {
    auto from = zc::File::open(argv[1]);
    auto to = zc::File::open(argv[2], {.access = zc::Access::write, .create = true, .mode = permissions(from)});
    const zc::TransferResult result = zc::transfer(from, to);
    if (to.size() > result.delivered) to.resize(result.delivered);
    fmt::print("copied {}\n", result);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "copy_file: {}\n", error.what());
    return 1;
  }
}
