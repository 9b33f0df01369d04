/* Stands for TVM's header of this name, which no wheel has. */
#ifndef EDGEQ_SUPPORT_UTILS_H_
#define EDGEQ_SUPPORT_UTILS_H_

#include <string>

namespace tvm {
namespace support {

/* Whether a text is digits only; an empty one is not. */
inline bool IsNumber(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

}  // namespace support
}  // namespace tvm

#endif
