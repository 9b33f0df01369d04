/* Tensors as text inside JSON, which nothing on a board reads: the streams are there so that TVM's tensor.cc compiles,
 * and refuse to be used. Stands for TVM's header of this name. */
#ifndef EDGEQ_SUPPORT_BASE64_H_
#define EDGEQ_SUPPORT_BASE64_H_

#include <tvm/ffi/error.h>
#include <tvm/support/io.h>

namespace tvm {
namespace support {

class Base64Stream : public Stream {
 public:
  using Stream::Read;
  using Stream::Write;

  explicit Base64Stream(Stream*) { TVM_FFI_THROW(NotImplementedError) << "edgeq's runtime has no tensors in JSON"; }
  size_t Read(void*, size_t) override { return 0; }
  size_t Write(const void*, size_t) override { return 0; }
  void InitPosition() {}
  void Finish() {}
};

using Base64InStream = Base64Stream;
using Base64OutStream = Base64Stream;

}  // namespace support
}  // namespace tvm

#endif
