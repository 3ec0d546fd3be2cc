// What a model folder's config.json says: the task, its labels, how texts are cut into windows.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "errors.h"

namespace ernie {

enum class TaskKind { seq_cls, token_cls, qa };

std::string task_name(TaskKind kind);

struct Config {
  TaskKind kind = TaskKind::seq_cls;
  std::string architecture;
  std::vector<std::string> labels;  // by class; none for reading comprehension
  int vocab_size = 0, max_position_embeddings = 0;  // 0: it does not say
  std::string vocab_crc32;  // of Tokenizer; empty: it does not say
  // Of `task_specific_params`; as in training, where config.json does not say.
  int doc_stride = 128, max_query_length = 64, n_best_size = 20, max_answer_length = 50;
  // Of a classifier: whether it was fine-tuned on pairs of texts, and so takes nothing else.
  std::optional<bool> text_pair;
};

// Throws Error: the folder or the file is missing or broken, or its parts do not fit together.
Config read_config(const std::string& folder);

}  // namespace ernie
