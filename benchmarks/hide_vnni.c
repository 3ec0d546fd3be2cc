/* Lets a program run as on a processor with AVX2 and without AVX-512, VNNI and AMX, at this processor's speed:

     cc -shared -fPIC -O2 -o /tmp/hide_vnni.so benchmarks/hide_vnni.c -ldl
     LD_PRELOAD=/tmp/hide_vnni.so python benchmarks/predictor_speed.py

   For figures and tests on a machine that has VNNI. Linux on x86-64, on processors that can forbid the CPUID instruction
   (`cpuid_fault` in /proc/cpuinfo; most of Intel's): each CPUID then raises SIGSEGV, and the handler answers in its
   place. /proc/cpuinfo is shown without these instructions, too. Elsewhere `qemu-x86_64 -cpu Haswell` (qemu-user) does
   the same, slowly; tests/test_processors.py takes that. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define ARCH_SET_CPUID 0x1012

static struct sigaction theirs; /* the program's own handler of SIGSEGV */
static int is_armed;
static char cpuinfo[32]; /* where the changed copy is */

static unsigned bits(const int *numbers) {
  unsigned mask = 0;
  for (; *numbers >= 0; ++numbers) mask |= 1u << *numbers;
  return mask;
}
#define BITS(...) bits((const int[]){__VA_ARGS__, -1})

static void on_fault(int number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *code = (const unsigned char *)registers[REG_RIP];
  if (info->si_code == SI_KERNEL && code[0] == 0x0f && code[1] == 0xa2) {
    unsigned leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
    __cpuid_count(leaf, part, a, b, c, d);
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
    if (leaf == 7 && part == 0) {
      b &= ~BITS(16, 17, 21, 26, 27, 28, 30, 31); /* AVX-512 */
      c &= ~BITS(1, 6, 11, 12, 14);               /* its extensions, VNNI among them */
      d &= ~BITS(2, 3, 8, 22, 23, 24, 25);        /* more of them, AMX */
    } else if (leaf == 7 && part == 1) {
      a &= ~BITS(4, 5, 21, 23);      /* AVX-VNNI, AVX512_BF16, AMX-FP16, AVX-IFMA */
      d &= ~BITS(4, 5, 8, 10, 19);   /* AVX-VNNI-INT8, AVX-NE-CONVERT, AMX-COMPLEX, AVX-VNNI-INT16, AVX10 */
    } else if (leaf == 13 && part == 0) {
      a &= ~BITS(5, 6, 7, 17, 18); /* their registers */
    }
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
  } else if (theirs.sa_flags & SA_SIGINFO) {
    theirs.sa_sigaction(number, info, context);
  } else if (theirs.sa_handler != SIG_DFL && theirs.sa_handler != SIG_IGN) {
    theirs.sa_handler(number);
  } else {
    struct sigaction end = {.sa_handler = SIG_DFL};
    REAL(sigaction)(SIGSEGV, &end, NULL);
  }
}

/* A handler of the program's own comes after this one. */
int sigaction(int number, const struct sigaction *action, struct sigaction *before) {
  if (number != SIGSEGV || !is_armed) return REAL(sigaction)(number, action, before);
  if (before) *before = theirs;
  if (action) theirs = *action;
  return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
  if (number != SIGSEGV || !is_armed) return REAL(signal)(number, handler);
  sighandler_t before = theirs.sa_handler;
  theirs = (struct sigaction){.sa_handler = handler};
  return before;
}

/* Threads that block all signals would end at their first CPUID. */
int pthread_sigmask(int how, const sigset_t *set, sigset_t *before) {
  sigset_t kept;
  if (set && how != SIG_UNBLOCK) {
    kept = *set;
    sigdelset(&kept, SIGSEGV);
    set = &kept;
  }
  return REAL(pthread_sigmask)(how, set, before);
}

int sigprocmask(int how, const sigset_t *set, sigset_t *before) { return pthread_sigmask(how, set, before); }

static const char *shown(const char *path) {
  return is_armed && path && strcmp(path, "/proc/cpuinfo") == 0 ? cpuinfo : path;
}

#define OPEN(name, parameters, arguments)          \
  int name parameters {                            \
    va_list rest;                                  \
    va_start(rest, flags);                         \
    mode_t mode = va_arg(rest, mode_t);            \
    va_end(rest);                                  \
    return REAL(name) arguments;                   \
  }
OPEN(open, (const char *path, int flags, ...), (shown(path), flags, mode))
OPEN(open64, (const char *path, int flags, ...), (shown(path), flags, mode))
OPEN(openat, (int folder, const char *path, int flags, ...), (folder, shown(path), flags, mode))
OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, shown(path), flags, mode))
FILE *fopen(const char *path, const char *mode) { return REAL(fopen)(shown(path), mode); }
FILE *fopen64(const char *path, const char *mode) { return REAL(fopen64)(shown(path), mode); }

/* Copies /proc/cpuinfo into memory without the words that name what is hidden. */
static void copy_cpuinfo(void) {
  FILE *source = REAL(fopen)("/proc/cpuinfo", "r");
  int target = memfd_create("cpuinfo", MFD_CLOEXEC);
  char *line = NULL;
  size_t size = 0;
  while (getline(&line, &size, source) > 0) {
    for (char *word = line, *end; *word; word = end) {
      end = word + 1 + strcspn(word + 1, " ");
      if (strncmp(word, " avx512", 7) && strncmp(word, " avx_vnni", 9) && strncmp(word, " amx", 4)) {
        if (write(target, word, end - word) < 0) abort();
      } else if (end[-1] == '\n' && write(target, "\n", 1) < 0) {
        abort();
      }
    }
  }
  free(line);
  fclose(source);
  snprintf(cpuinfo, sizeof cpuinfo, "/proc/self/fd/%d", target);
}

__attribute__((constructor)) static void start(void) {
  copy_cpuinfo();
  struct sigaction ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
  REAL(sigaction)(SIGSEGV, &ours, &theirs);
  is_armed = 1;
  if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0)) {
    fputs("hide_vnni: this processor or kernel cannot forbid CPUID; take qemu-x86_64 -cpu Haswell\n", stderr);
    _exit(1);
  }
}
