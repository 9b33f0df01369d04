/* The format in which TVM's compiler writes an executable: little-endian, numbers in their own size, and a length of 64
 * bits before everything that has one, whatever the size of a pointer. Stands for TVM's header of this name. */
#ifndef EDGEQ_TVM_SUPPORT_SERIALIZER_H_
#define EDGEQ_TVM_SUPPORT_SERIALIZER_H_

#include <dlpack/dlpack.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/string.h>
#include <tvm/support/io.h>

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace tvm {
namespace support {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "executables are little-endian");

template <typename T>
struct Serializer<T, std::enable_if_t<std::is_arithmetic_v<T> || std::is_enum_v<T>>> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const T& value) { stream->Write(&value, sizeof value); }
  static bool Read(Stream* stream, T* value) { return stream->Read(value, sizeof *value) == sizeof *value; }
};

template <>
struct Serializer<DLDataType> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const DLDataType& type) {
    stream->Write(type.code);
    stream->Write(type.bits);
    stream->Write(type.lanes);
  }
  static bool Read(Stream* stream, DLDataType* type) {
    return stream->Read(&type->code) && stream->Read(&type->bits) && stream->Read(&type->lanes);
  }
};

template <>
struct Serializer<DLDevice> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const DLDevice& device) {
    stream->Write(static_cast<int32_t>(device.device_type));
    stream->Write(device.device_id);
  }
  static bool Read(Stream* stream, DLDevice* device) {
    int32_t type = 0;
    if (!stream->Read(&type) || !stream->Read(&device->device_id)) return false;
    device->device_type = static_cast<DLDeviceType>(type);
    return true;
  }
};

template <>
struct Serializer<std::string> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const std::string& text) {
    stream->Write(static_cast<uint64_t>(text.size()));
    stream->Write(text.data(), text.size());
  }
  /* Piece by piece: a damaged length must not take memory that the file cannot fill. */
  static bool Read(Stream* stream, std::string* text) {
    uint64_t left = 0;
    if (!stream->Read(&left)) return false;
    text->clear();
    while (left > 0) {
      char piece[256];
      size_t size = static_cast<size_t>(std::min<uint64_t>(left, sizeof piece));
      if (stream->Read(piece, size) != size) return false;
      text->append(piece, size);
      left -= size;
    }
    return true;
  }
};

template <>
struct Serializer<ffi::String> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const ffi::String& text) { stream->Write(std::string(text)); }
  static bool Read(Stream* stream, ffi::String* text) {
    std::string read;
    if (!stream->Read(&read)) return false;
    *text = ffi::String(std::move(read));
    return true;
  }
};

template <typename T>
struct Serializer<std::vector<T>> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const std::vector<T>& items) {
    stream->Write(static_cast<uint64_t>(items.size()));
    for (const T& item : items) stream->Write(item);
  }
  /* One by one, for the same reason. */
  static bool Read(Stream* stream, std::vector<T>* items) {
    uint64_t count = 0;
    if (!stream->Read(&count)) return false;
    items->clear();
    for (uint64_t i = 0; i < count; ++i) {
      T item{};
      if (!stream->Read(&item)) return false;
      items->push_back(std::move(item));
    }
    return true;
  }
};

template <typename T>
struct Serializer<ffi::Array<T>> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const ffi::Array<T>& items) {
    stream->Write(std::vector<T>(items.begin(), items.end()));
  }
  static bool Read(Stream* stream, ffi::Array<T>* items) {
    std::vector<T> read;
    if (!stream->Read(&read)) return false;
    *items = ffi::Array<T>(read.begin(), read.end());
    return true;
  }
};

}  // namespace support
}  // namespace tvm

#endif
