/* Answers of a fine-tuned ERNIE model, for any language that can call C.
 *
 * A predictor may be called from several threads at once. Texts are UTF-8. A pointer that is NULL is an error, except for
 * ernie_truncated (0), ernie_free and ernie_close (nothing is done). */
#ifndef ERNIE_H_
#define ERNIE_H_

#include <stddef.h>

#if defined(__GNUC__)
#define ERNIE_API __attribute__((visibility("default")))
#else
#define ERNIE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ernie_predictor ernie_predictor;

/* Opens a model folder. num_threads 0: the cores that this process may use; batch_size 0: 32; max_seq_length 0: as
 * trained. Returns NULL after an error. */
ERNIE_API ernie_predictor* ernie_open(const char* model_path, int num_threads, int batch_size, int max_seq_length);

/* Answers lines, as ernie_infer reads and writes them: one JSON value per line, in the order of the lines. The result is to
 * be freed with ernie_free. Returns NULL after an error: no line is answered if one is broken. */
ERNIE_API char* ernie_predict(const ernie_predictor* predictor, const char* lines);

/* How many texts (for reading comprehension, questions) of all calls were longer than the model reads, and truncated. */
ERNIE_API size_t ernie_truncated(const ernie_predictor* predictor);

/* What went wrong in the last call of this thread that failed, in UTF-8; valid until the next one fails. */
ERNIE_API const char* ernie_last_error(void);

ERNIE_API void ernie_free(char* result);

/* No call may be under way. */
ERNIE_API void ernie_close(ernie_predictor* predictor);

#ifdef __cplusplus
}
#endif

#endif /* ERNIE_H_ */
