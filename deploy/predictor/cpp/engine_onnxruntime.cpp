// ONNX Runtime's CPU provider, through its C API, with the settings of ernie_predictor/runtimes.py.
#include <onnxruntime_c_api.h>

#include <memory>
#include <string>

#include "engine.h"
#include "machine.h"

namespace ernie {
namespace {

const OrtApi& api() {
  static const OrtApi* api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    throw Error(std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString() +
                " is older than the headers that this program was built with");
  }
  return *api;
}

void check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = api().GetErrorMessage(status);
  api().ReleaseStatus(status);
  throw std::runtime_error(message);
}

// A pointer that ONNX Runtime releases: Pointer<OrtSession> session(made, api().ReleaseSession).
template <typename Type>
using Pointer = std::unique_ptr<Type, void (*)(Type*)>;

class OnnxRuntimeEngine : public Engine {
 public:
  OnnxRuntimeEngine(const std::string& onnx_file, int num_threads) {
    // Without VNNI its products of uint8 and int8 saturate, unless the weights allow for it. Then this entry lets such
    // processors take a kernel that does not, and that takes 1.4 times as long.
    open(onnx_file, num_threads, "1");
    if (!has_vnni() && pairs_fit()) open(onnx_file, num_threads, "0");
    auto* const session = session_.get();
    std::vector<std::string> inputs;
    size_t count = 0;
    check(api().SessionGetInputCount(session, &count));
    for (size_t i = 0; i < count; ++i) {
      if (shape_of(api().SessionGetInputTypeInfo, i).first != ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64) continue;
      inputs.push_back(name_of(api().SessionGetInputName, i));
    }
    check_inputs(onnx_file, inputs);
    check(api().SessionGetOutputCount(session, &count));
    for (size_t i = 0; i < count; ++i) {
      output_names_.push_back(name_of(api().SessionGetOutputName, i));
      const auto shape = shape_of(api().SessionGetOutputTypeInfo, i).second;
      widths_.push_back(shape.empty() || shape.back() < 0 ? 0 : static_cast<size_t>(shape.back()));
    }
  }

  std::vector<size_t> widths() const override { return widths_; }

  std::vector<Output> run(Batch& batch) override {
    OrtMemoryInfo* memory = nullptr;
    check(api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    const Pointer<OrtMemoryInfo> released(memory, api().ReleaseMemoryInfo);
    const auto ids = tensor(*memory, batch, batch.input_ids), types = tensor(*memory, batch, batch.token_type_ids);
    const char* input_names[] = {"input_ids", "token_type_ids"};
    const OrtValue* inputs[] = {ids.get(), types.get()};
    std::vector<const char*> output_names;
    for (const auto& name : output_names_) output_names.push_back(name.c_str());
    std::vector<OrtValue*> values(output_names.size());
    check(api().Run(session_.get(), nullptr, input_names, inputs, 2, output_names.data(), values.size(), values.data()));
    std::vector<Pointer<OrtValue>> owned;
    for (auto* value : values) owned.emplace_back(value, api().ReleaseValue);
    std::vector<Output> outputs;
    for (auto* value : values) {
      OrtTensorTypeAndShapeInfo* info = nullptr;
      check(api().GetTensorTypeAndShape(value, &info));
      const Pointer<OrtTensorTypeAndShapeInfo> info_released(info, api().ReleaseTensorTypeAndShapeInfo);
      size_t size = 0;
      check(api().GetTensorShapeElementCount(info, &size));
      void* data = nullptr;
      check(api().GetTensorMutableData(value, &data));
      const auto* logits = static_cast<const float*>(data);
      outputs.push_back({{logits, logits + size}});
    }
    return outputs;
  }

 private:
  void open(const std::string& onnx_file, int num_threads, const char* precise_products) {
    OrtSessionOptions* options = nullptr;
    check(api().CreateSessionOptions(&options));
    const Pointer<OrtSessionOptions> released(options, api().ReleaseSessionOptions);
    check(api().SetIntraOpNumThreads(options, num_threads));
    check(api().AddSessionConfigEntry(options, "session.x64quantprecision", precise_products));
    OrtSession* session = nullptr;
    check(api().CreateSession(environment(), onnx_file.c_str(), options, &session));
    session_.reset(session);
  }

  // Whether the file says that its INT8 products saturate on no processor, as ernie_predictor/int8.py writes it.
  bool pairs_fit() const {
    OrtModelMetadata* metadata = nullptr;
    check(api().SessionGetModelMetadata(session_.get(), &metadata));
    const Pointer<OrtModelMetadata> released(metadata, api().ReleaseModelMetadata);
    OrtAllocator* allocator = nullptr;
    check(api().GetAllocatorWithDefaultOptions(&allocator));
    char* value = nullptr;
    check(api().ModelMetadataLookupCustomMetadataMap(metadata, allocator, "int8_pairs_of_products", &value));
    if (value == nullptr) return false;
    const bool fit = std::string(value) == "fit 16 bits";
    check(api().AllocatorFree(allocator, value));
    return fit;
  }

  // One for all models of the process, and never released.
  static OrtEnv* environment() {
    static OrtEnv* const environment = [] {
      OrtEnv* made = nullptr;
      check(api().CreateEnv(ORT_LOGGING_LEVEL_ERROR, "ernie", &made));
      return made;
    }();
    return environment;
  }

  static Pointer<OrtValue> tensor(const OrtMemoryInfo& memory, const Batch& batch, std::vector<int64_t>& values) {
    const int64_t shape[] = {static_cast<int64_t>(batch.size), static_cast<int64_t>(batch.length)};
    OrtValue* value = nullptr;
    check(api().CreateTensorWithDataAsOrtValue(&memory, values.data(), values.size() * sizeof(int64_t), shape, 2,
                                               ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &value));
    return {value, api().ReleaseValue};
  }

  template <typename Function>
  std::string name_of(Function function, size_t index) const {
    OrtAllocator* allocator = nullptr;
    check(api().GetAllocatorWithDefaultOptions(&allocator));
    char* name = nullptr;
    check(function(session_.get(), index, allocator, &name));
    const std::string copy = name;
    check(api().AllocatorFree(allocator, name));
    return copy;
  }

  // The type and shape of an input or output; -1 where a dimension is not fixed.
  template <typename Function>
  std::pair<ONNXTensorElementDataType, std::vector<int64_t>> shape_of(Function function, size_t index) const {
    OrtTypeInfo* type = nullptr;
    check(function(session_.get(), index, &type));
    const Pointer<OrtTypeInfo> released(type, api().ReleaseTypeInfo);
    const OrtTensorTypeAndShapeInfo* info = nullptr;  // of `type`
    check(api().CastTypeInfoToTensorInfo(type, &info));
    auto element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    check(api().GetTensorElementType(info, &element));
    size_t size = 0;
    check(api().GetDimensionsCount(info, &size));
    std::vector<int64_t> shape(size);
    check(api().GetDimensions(info, shape.data(), size));
    return {element, shape};
  }

  Pointer<OrtSession> session_{nullptr, api().ReleaseSession};
  std::vector<std::string> output_names_;
  std::vector<size_t> widths_;
};

}  // namespace

// Nothing is compiled, so that nothing is kept.
std::unique_ptr<Engine> open_engine(const std::string& onnx_file, int num_threads, const std::string&) {
  return std::make_unique<OnnxRuntimeEngine>(onnx_file, num_threads);
}

std::string engine_version() { return std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString(); }

}  // namespace ernie
