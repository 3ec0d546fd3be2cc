/* The smallest program that uses the C API: example DIR TEXT */
#include <stdio.h>

#include "ernie.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s DIR TEXT\n", argv[0]);
    return 2;
  }
  ernie_predictor* predictor = ernie_open(argv[1], 0, 0, 0);
  char* answers = predictor ? ernie_predict(predictor, argv[2]) : NULL;
  if (answers) {
    fputs(answers, stdout);
  } else {
    fprintf(stderr, "%s: error: %s\n", argv[0], ernie_last_error());
  }
  const int status = answers ? 0 : 1;
  ernie_free(answers);
  ernie_close(predictor);
  return status;
}
