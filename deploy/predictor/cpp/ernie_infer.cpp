// Runs a fine-tuned ERNIE model on texts: flags, input, output and messages of infer_cpu.py.
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <new>
#include <string_view>
#include <utility>

#include "lines.h"
#include "predictor.h"
#include "unicode.h"

namespace {

namespace fs = std::filesystem;
using ernie::Answer;
using ernie::Error;
using ernie::Options;
using ernie::Pair;
using ernie::UsageError;
using ernie::with_commas;

constexpr char kHelp[] = R"(usage: ernie_infer --model_path DIR [--input FILE] [--output FILE] [...]

Runs a fine-tuned ERNIE model on texts, on the CPU: classification, named entities, reading comprehension.

Input is one text per line (pairs, and question and context, with a tab between them), or JSON lines; output is one JSON
value per line. README.md describes both.

  -h, --help            show this message
  --model_path DIR      folder that run_*.py --do_export or compress_*.py wrote
  --task_name NAME      seq_cls, token_cls or qa (default: told from the model's config.json)
  --max_seq_length N    at most N tokens per text (default: as in training)
  --input FILE          - for standard input (default: two built-in examples)
  --output FILE         written when all lines are answered (default: standard output)
  --on_error NAME       at a broken line stop, or report and skip it (default: stop)
  --batch_size N        texts per batch; with 1 each line is answered before the next is read (default: 32)
  --num_threads N       threads for one batch (default: the usable cores)
  --cache_dir DIR       for the compiled model (default: ~/.cache/ernie_predictor)
)";

const std::vector<Pair> kExamples[] = {
    {{"今年的苹果又大又甜，果农的收入增加了", {}}, {"女排打破全国纪录，主教练赛后落泪", {}}},
    {{"校长宋婷说，宁岭市人民医院的学生已经超过292人。", {}},
     {"宋刚勇、谢杰强等18名队员参加了在长泉县举行的比赛。", {}}},
    {{"张伟出生于哪一年？", "张伟，1968年出生于南京，毕业于清华大学，现在是一家公司的经理，最爱吃饺子。"},
     {"长城有多长？", "长城是中国古代的军事防御工程，总长度超过2万千米，分布在15个省区市。"}},
};

const std::vector<Pair> kPairs = {{"怎么开通信用卡", "我要办理信用卡"}, {"花呗怎么还款", "借呗的利息怎么算"}};

// The reader of the answers has closed the pipe.
struct ClosedPipe {};

// Which of the standard streams were closed when the program began. Otherwise the next files that are opened would get their
// numbers, and what is written to the stream.
std::array<bool, 3> find_closed_streams() {
  std::array<bool, 3> closed = {};
  for (int stream = 0; stream < 3; ++stream) {
    closed[static_cast<size_t>(stream)] = fcntl(stream, F_GETFD) < 0 && open("/dev/null", O_RDWR) == stream;
  }
  return closed;
}

void report(const std::string& message) { std::cerr << ernie::valid_utf8(message) + '\n'; }

struct Arguments : Options {
  std::string model_path, input, output;
  bool skips_errors = false;
};

int positive(const std::string& flag, const std::string& text) {
  const bool is_number = !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == text.npos;
  if (!is_number || std::stoi(text) < 1) {
    throw UsageError("argument --" + flag + ": " + text + ": expected a whole number, 1 or more");
  }
  return std::stoi(text);
}

std::string one_of(const std::string& flag, const std::string& text, const std::vector<std::string>& choices) {
  if (std::find(choices.begin(), choices.end(), text) != choices.end()) return text;
  std::string list;
  for (const auto& choice : choices) list += (list.empty() ? "'" : ", '") + choice + "'";
  throw UsageError("argument --" + flag + ": invalid choice: '" + text + "' (choose from " + list + ")");
}

// The arguments from `index` on, up to the next flag.
std::string unrecognized(int argc, char** argv, int index) {
  std::string list = argv[index];
  while (++index < argc && std::strncmp(argv[index], "--", 2) != 0) list += std::string(" ") + argv[index];
  return list;
}

Arguments parse_arguments(int argc, char** argv) {
  enum Flag { model_path, task_name, max_seq_length, input, output, on_error, batch_size, num_threads, cache_dir, help };
  static const option kFlags[] = {
      {"model_path", required_argument, nullptr, model_path},
      {"task_name", required_argument, nullptr, task_name},
      {"max_seq_length", required_argument, nullptr, max_seq_length},
      {"input", required_argument, nullptr, input},
      {"output", required_argument, nullptr, output},
      {"on_error", required_argument, nullptr, on_error},
      {"batch_size", required_argument, nullptr, batch_size},
      {"num_threads", required_argument, nullptr, num_threads},
      {"cache_dir", required_argument, nullptr, cache_dir},
      {"help", no_argument, nullptr, help},
      {nullptr, 0, nullptr, 0},
  };
  Arguments args;
  for (;;) {
    const int index = optind;
    int which = 0;
    const int found = getopt_long(argc, argv, "+:h", kFlags, &which);
    if (found == -1) break;
    const std::string value = optarg == nullptr ? "" : optarg;
    switch (found) {
      case model_path:
        args.model_path = value;
        break;
      case task_name:
        args.task_name = one_of("task_name", value, {"seq_cls", "token_cls", "qa"});
        break;
      case max_seq_length:
        args.max_seq_length = positive("max_seq_length", value);
        break;
      case input:
        args.input = value;
        break;
      case output:
        args.output = value;
        break;
      case on_error:
        args.skips_errors = one_of("on_error", value, {"stop", "skip"}) == "skip";
        break;
      case batch_size:
        args.batch_size = positive("batch_size", value);
        break;
      case num_threads:
        args.num_threads = positive("num_threads", value);
        break;
      case cache_dir:
        args.cache_dir = value;
        break;
      case 'h':
      case help:
        std::fputs(kHelp, stdout);
        std::exit(0);
      case ':':
        throw UsageError("argument " + std::string(argv[index]) + ": expected one argument");
      default:
        throw UsageError("unrecognized arguments: " + unrecognized(argc, argv, index));
    }
  }
  if (args.model_path.empty()) throw UsageError("the following arguments are required: --model_path");
  if (optind < argc) throw UsageError("unrecognized arguments: " + unrecognized(argc, argv, optind));
  std::error_code ignored;
  if (!args.output.empty() && fs::equivalent(args.input, args.output, ignored)) {
    throw UsageError("--output " + args.output + " is the input file");
  }
  return args;
}

// Standard output, or a file, which gets its name when all is done; after an error it is FILE.part. Pipes and devices are
// written in place.
class Sink {
 public:
  explicit Sink(const std::string& name) : name_(name) {
    if (name.empty()) {
      file_ = stdout;
      return;
    }
    std::error_code ignored;
    target_ = fs::weakly_canonical(name, ignored).string();  // a link is written through
    const bool is_open_file = name.rfind("/dev/", 0) == 0 || name.rfind("/proc/", 0) == 0;
    const bool in_place = is_open_file || (fs::exists(target_, ignored) && !fs::is_regular_file(target_, ignored));
    if (!in_place) part_ = target_ + '.' + std::to_string(getpid()) + ".part";  // its own, should two runs write one file
    file_ = std::fopen((in_place ? name : part_).c_str(), "wb");
    if (file_ == nullptr) throw Error("--output " + name + ": " + std::strerror(errno));
  }

  ~Sink() {
    if (file_ != nullptr && file_ != stdout) std::fclose(file_);
    // Answers that came before an error are kept, under a name that says so.
    std::error_code ignored;
    if (part_.empty()) return;
    if (fs::file_size(part_, ignored) == 0) {
      fs::remove(part_, ignored);
    } else {
      fs::rename(part_, target_ + ".part", ignored);
    }
  }

  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;

  void write(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), file_) < text.size() || std::fflush(file_) != 0) fail();
  }

  void finish() {
    if (file_ == stdout) return;
    const bool is_closed = std::fclose(file_) == 0;
    file_ = nullptr;
    if (!is_closed) fail();
    if (!part_.empty()) fs::rename(part_, target_);
    part_.clear();
  }

  bool is_terminal() const { return isatty(fileno(file_)) == 1; }

 private:
  [[noreturn]] void fail() const {
    if (errno == EPIPE) throw ClosedPipe();
    throw Error((name_.empty() ? "standard output" : "--output " + name_) + ": " + std::strerror(errno));
  }

  std::string name_, target_, part_;
  std::FILE* file_ = nullptr;
};

// How many texts are answered, on a terminal.
class Progress {
 public:
  explicit Progress(bool is_shown) : is_shown_(is_shown) {}
  ~Progress() {
    if (is_shown_) std::fputc('\n', stderr);
  }

  void add(size_t number) {
    done_ += number;
    if (!is_shown_) return;
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start_;
    std::fprintf(stderr, "\r%s texts [%.0f s, %.1f texts/s]", with_commas(done_).c_str(), seconds.count(),
                 static_cast<double>(done_) / seconds.count());
  }

 private:
  bool is_shown_;
  size_t done_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void show_examples(const ernie::Predictor& predictor, Sink& sink) {
  const bool is_of_pairs = predictor.task().config().text_pair.value_or(false);
  const auto& pairs = is_of_pairs ? kPairs : kExamples[static_cast<size_t>(predictor.task().kind())];
  const auto answers = predictor.predict(pairs);
  for (size_t i = 0; i < pairs.size(); ++i) {
    const auto text = pairs[i].first + (pairs[i].second ? " | " + *pairs[i].second : "");
    sink.write(text + " -> " + to_json(answers[i]) + '\n');
  }
}

// What a file is instead of UTF-8, by its first bytes, and what to do; nothing where they do not tell.
std::string file_kind(std::string_view first_line) {
  constexpr std::pair<std::string_view, const char*> kStarts[] = {
      {"\xFF\xFE", "it is UTF-16; save it as UTF-8"},
      {"\xFE\xFF", "it is UTF-16; save it as UTF-8"},
      {"\x1F\x8B", "it is compressed with gzip; decompress it"},
      {"PK\x03\x04", "it is a zip archive; extract it"},
  };
  for (const auto& [start, kind] : kStarts) {
    if (first_line.substr(0, start.size()) == start) return kind;
  }
  return "";
}

// Whether a file is a table or a file of training, not lines of texts, by its name's ending and its first line, as
// infer_cpu.py tells them. As lines, headers, separators and tags would be parts of the texts.
bool is_not_of_lines(const std::string& name, std::string_view line, ernie::TaskKind kind) {
  auto ending = fs::path(name).extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return std::tolower(c); });
  const auto tables = {".csv", ".tsv", ".xlsx", ".xls", ".ods"};
  if (std::find(tables.begin(), tables.end(), ending) != tables.end()) return true;
  if (kind == ernie::TaskKind::token_cls) return ending == ".conll" || line.find('\x02') != line.npos;
  if (kind != ernie::TaskKind::qa) return false;
  // SQuAD's format is one JSON object: {"version": ..., "data": [...]}, often over many lines.
  const auto skip = [&](std::string_view what) {
    line.remove_prefix(std::min(line.find_first_not_of(" \t\r\n\v\f"), line.size()));
    if (line.substr(0, what.size()) != what) return false;
    line.remove_prefix(what.size());
    return true;
  };
  skip("\xEF\xBB\xBF");
  return skip("{") && ((skip("") && line.empty()) || ((skip("\"data\"") || skip("\"version\"")) && skip(":")));
}

void answer_lines(const Arguments& args, const ernie::Predictor& predictor, std::istream& lines, Sink& sink) {
  const std::string name = args.input == "-" ? "standard input" : args.input;
  size_t number = 0;
  Progress progress(isatty(STDERR_FILENO) == 1 && !sink.is_terminal());
  std::string line;
  const auto next = [&](Pair& pair) {
    while (std::getline(lines, line)) {
      if (!lines.eof()) line += '\n';
      ++number;
      if (number == 1 && args.input != "-" && is_not_of_lines(name, line, predictor.task().kind())) {
        throw Error(name + ": tables and files of training are not read here: write a text per line or JSON lines, or " +
                    "take infer_cpu.py");
      }
      if (const auto kind = number == 1 ? file_kind(line) : ""; !kind.empty()) {
        throw Error(name + " is not UTF-8: " + kind);
      }
      try {
        pair = ernie::parse_line(line, predictor.task(), number == 1);
        return true;
      } catch (const Error& e) {
        const auto where = name + " line " + std::to_string(number);
        if (!args.skips_errors) {
          const bool is_gbk = ernie::valid_utf8(line) != line && ernie::is_gb18030(line);
          const auto hint = is_gbk ? "; if it is GBK or GB18030, save it as UTF-8" : "";
          throw Error(where + ": " + e.what() + hint + " (--on_error skip skips such lines)");
        }
        report(where + " is left out: " + e.what());
      }
    }
    if (lines.bad()) throw Error("--input " + args.input + ": " + std::strerror(errno));
    return false;
  };
  predictor.predict_stream(next, [&](const std::vector<Answer>& answers) {
    std::string text;
    for (const auto& answer : answers) text += to_json(answer) + '\n';
    sink.write(text);
    progress.add(answers.size());
  });
}

void run(const Arguments& args, const std::array<bool, 3>& closed) {
  if (args.input == "-" && closed[STDIN_FILENO]) throw Error("standard input is closed: name a file with --input");
  if (args.output.empty() && closed[STDOUT_FILENO]) throw Error("standard output is closed: name a file with --output");
  std::ifstream file;
  if (!args.input.empty() && args.input != "-") {
    file.open(args.input, std::ios::binary);
    if (!file || fs::is_directory(args.input)) {
      throw Error("--input " + args.input + ": " + std::strerror(file ? EISDIR : errno));
    }
  }
  Sink sink(args.output);
  const ernie::Predictor predictor(args.model_path, args);
  if (args.input.empty()) {
    show_examples(predictor, sink);
  } else {
    answer_lines(args, predictor, args.input == "-" ? std::cin : file, sink);
  }
  sink.finish();
  if (const auto truncated = predictor.task().truncated(); truncated > 0) {
    const auto [what, limit] = predictor.task().limit();
    report("ernie_infer: " + with_commas(truncated) + ' ' + what + (truncated == 1 ? " is" : "s are") + " longer than " +
           std::to_string(limit) + " tokens; the rest was not read");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const auto closed = find_closed_streams();
  std::ios::sync_with_stdio(false);
  signal(SIGPIPE, SIG_IGN);
  opterr = 0;
  int status = 0;
  try {
    run(parse_arguments(argc, argv), closed);
  } catch (const UsageError& e) {
    report(std::string("ernie_infer: error: ") + e.what());
    status = 2;
  } catch (const ClosedPipe&) {
    status = 1;
  } catch (const std::bad_alloc&) {
    report("ernie_infer: error: there is not enough memory");
    status = 1;
  } catch (const std::exception& e) {
    report(std::string("ernie_infer: error: ") + e.what());
    status = 1;
  }
  return status;
}
