// OpenVINO, with the settings of ernie_predictor/runtimes.py.
#include <mutex>
#include <openvino/openvino.hpp>

#include "compiled_model.h"
#include "engine.h"
#include "machine.h"

namespace ernie {
namespace {

// One for all models, and never deleted: on processors with AMX each Core has signal handlers of the thread run on a stack
// of its own, and frees that when it is deleted; the next signal with a handler then ends the process.
ov::Core& core() {
  static ov::Core& core = *new ov::Core;
  return core;
}

class OpenVinoEngine : public Engine {
 public:
  OpenVinoEngine(const std::string& onnx_file, int num_threads, const std::string& cache_dir) : path_(onnx_file) {
    ov::AnyMap config = {
        // By default it computes an FP32 model in bfloat16 if the processor can.
        ov::hint::inference_precision(ov::element::f32),
        ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
        ov::num_streams(1),
        ov::inference_num_threads(num_threads),
        // Pinned threads of several processes share the same cores, while others are idle.
        ov::hint::enable_cpu_pinning(false),
    };
    // Without VNNI its INT8 products saturate. This computes the same file in float32; an FP32 model stays as it is.
    if (!has_vnni()) config["LP_TRANSFORMS_MODE"] = false;
    open(config, CompiledModel(onnx_file, ov::get_openvino_version().buildNumber, cache_dir));
    std::vector<std::string> names;
    for (const auto& input : model_.inputs()) {
      if (input.get_element_type() == ov::element::i64) names.push_back(input.get_any_name());
    }
    check_inputs(path_, names);
  }

  std::vector<size_t> widths() const override {
    std::vector<size_t> widths;
    for (const auto& output : model_.outputs()) {
      const auto shape = output.get_partial_shape();
      const bool is_known = shape.rank().is_static() && shape.size() > 0 && shape[shape.size() - 1].is_static();
      widths.push_back(is_known ? static_cast<size_t>(shape[shape.size() - 1].get_length()) : 0);
    }
    return widths;
  }

  std::vector<Output> run(Batch& batch) override {
    auto request = take_request();
    const ov::Shape shape = {batch.size, batch.length};
    request.set_tensor("input_ids", ov::Tensor(ov::element::i64, shape, batch.input_ids.data()));
    request.set_tensor("token_type_ids", ov::Tensor(ov::element::i64, shape, batch.token_type_ids.data()));
    request.infer();
    std::vector<Output> outputs;
    for (const auto& output : model_.outputs()) {
      const auto tensor = request.get_tensor(output);
      outputs.push_back({{tensor.data<const float>(), tensor.data<const float>() + tensor.get_size()}});
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    requests_.push_back(request);
    return outputs;
  }

 private:
  void open(const ov::AnyMap& config, const CompiledModel& compiled) {
    if (auto file = std::make_unique<FileContent>(compiled.path()); compiled.is_intact(*file)) {
      try {
        blob_ = ov::Tensor(ov::element::u8, {file->size() - CompiledModel::kRecordSize}, file->data());
        model_ = core().import_model(blob_, "CPU", config);
        file_ = std::move(file);  // OpenVINO reads on from there for as long as the model is open
        return;
      } catch (const std::exception&) {
        // Of another OpenVINO after all: it is made anew.
      }
    }
    model_ = core().compile_model(path_, "CPU", config);
    compiled.write([&](std::ostream& stream) { model_.export_model(stream); });
  }

  // A request serves one caller at a time. There are as many as there were callers at once.
  ov::InferRequest take_request() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (requests_.empty()) return model_.create_infer_request();
    auto request = requests_.back();
    requests_.pop_back();
    return request;
  }

  std::string path_;
  std::unique_ptr<FileContent> file_;
  ov::Tensor blob_;
  ov::CompiledModel model_;
  std::mutex mutex_;
  std::vector<ov::InferRequest> requests_;
};

}  // namespace

std::unique_ptr<Engine> open_engine(const std::string& onnx_file, int num_threads, const std::string& cache_dir) {
  return std::make_unique<OpenVinoEngine>(onnx_file, num_threads, cache_dir);
}

std::string engine_version() { return std::string("OpenVINO ") + ov::get_openvino_version().buildNumber; }

}  // namespace ernie
