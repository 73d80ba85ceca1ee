// zerocopy/detail/stranded_access.hpp: how a job comes by the bytes of an earlier transfer, and gives them back.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/job.hpp>  // Job
#include <zerocopy/result.hpp>      // Stranded

namespace zerocopy::inline ZEROCOPY_ABI::detail {

struct StrandedAccess {
  // Lends the bytes to a job, and takes back what it did not deliver.
  static void lend(Stranded& bytes, Job& job) noexcept {
    job.tools.store() = std::move(bytes.store_);
    job.machine.resume(bytes.buffered_, bytes.piped_);
  }
  static void take_back(Stranded& bytes, Job& job) noexcept {
    bytes.store_ = std::move(job.tools.store());
    bytes.buffered_ = job.machine.buffered();
    bytes.piped_ = job.machine.piped();
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
