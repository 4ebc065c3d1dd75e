// What a process says on standard error before it ends for a fault of its own.
#include "CSupport.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/// On the stack: memory may be what is broken.
struct words {
    char text[2048];
    size_t count;
};

__attribute__((format(printf, 2, 3)))
static void say(struct words *words, const char *format, ...) {
    size_t room = sizeof words->text - words->count;
    va_list arguments;
    va_start(arguments, format);
    int count = vsnprintf(words->text + words->count, room, format, arguments);
    va_end(arguments);
    // What does not fit is cut off, with room for the end of the line.
    if (count > 0) words->count += (size_t)count < room ? (size_t)count : room - 1;
}

static void say_word(struct words *words, const char *name, const uint64_t *word) {
    if (word != NULL) say(words, ", %s %llu", name, (unsigned long long)__atomic_load_n(word, __ATOMIC_RELAXED));
}

static _Thread_local struct csupport_standing standing;

struct csupport_standing csupport_stand(struct csupport_standing new) {
    struct csupport_standing old = standing;
    standing = new;
    return old;
}

static long lines_waiting;

void csupport_lines_waiting(long change) { __atomic_add_fetch(&lines_waiting, change, __ATOMIC_RELAXED); }

/// A second at most, and nothing that a handler of a signal may not do.
static void await_lines(void) {
    struct timespec pause = {.tv_nsec = 1000000};
    for (int i = 0; i < 1000 && __atomic_load_n(&lines_waiting, __ATOMIC_RELAXED) > 0; i++) nanosleep(&pause, NULL);
}

/// Adds where the one stands whom the thread works for, and writes all of it as a line.
static void finish(struct words *words) {
    if (standing.who != NULL) {
        say(words, "; %s %llu", standing.who, (unsigned long long)standing.number);
        say_word(words, "view", standing.view);
        say_word(words, "decided", standing.decided);
        say_word(words, "executed", standing.executed);
        say_word(words, "position", standing.position);
    }
    words->text[words->count++] = '\n';
    await_lines();
    // By one call, so that lines of several threads do not mix; a pipe that is ready takes all of it. A reader that
    // stands still must not keep the process from its end.
    struct pollfd error = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&error, 1, 1000) == 0) return;
    for (size_t written = 0; written < words->count;) {
        ssize_t part = write(STDERR_FILENO, words->text + written, words->count - written);
        if (part < 0 && errno == EINTR) continue;
        if (part <= 0) break;
        written += (size_t)part;
    }
}

void csupport_last_words(const char *what, const char *why, const char *file, uint32_t line) {
    struct words words;
    words.count = 0;
    say(&words, "mpaxos: %s: %.1024s", what, why);
    // The folder of the sources: a module is named after it, with a prefix.
    if (file != NULL && strncmp(file, "MPaxos", 6) == 0 && strncmp(file, "MPaxosSM/", 9) != 0) file += 6;
    if (file != NULL) say(&words, " (%s:%u)", file, line);
    finish(&words);
    abort();
}

static const struct fault {
    int signal;
    const char *meaning;
} faults[] = {
    {SIGILL, "a check of the program's own failed, such as an overflow or an index out of range"},
    {SIGTRAP, "a check of the program's own failed, such as an overflow or an index out of range"},
    {SIGSEGV, "memory was touched that is not there"},
    {SIGBUS, "a page of a file could not be had: its file system is full or damaged, or the file was cut"},
};
enum { fault_count = sizeof faults / sizeof *faults };
static struct sigaction actions_before[fault_count];

static void tell(int signal, siginfo_t *information, void *context) {
    (void)context;
    for (int i = 0; i < fault_count; i++) {
        if (faults[i].signal != signal) continue;
        struct words words;
        words.count = 0;
        say(&words, "mpaxos: stopped: signal %d: %s", signal, faults[i].meaning);
        finish(&words);
        // The instruction is met again, and ends the process as it would have. What somebody sent is sent again, and
        // ends it: handlers from before may return from what is no fault.
        struct sigaction action = actions_before[i];
        if (information->si_code <= 0) action = (struct sigaction){.sa_handler = SIG_DFL};
        sigaction(signal, &action, NULL);
        if (information->si_code <= 0) raise(signal);
        return;
    }
}

void csupport_tell_of_faults(void) {
    struct sigaction action = {.sa_sigaction = tell, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < fault_count; i++) sigaction(faults[i].signal, &action, &actions_before[i]);
}
