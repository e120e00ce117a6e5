/* getaddrinfo() waits as long as resolv.conf says, and nothing can end it. So a thread calls it, and whoever does not get
 * the answer in time leaves the thread behind: it frees the question when getaddrinfo() returns. The library is linked so
 * that it is never unloaded, for such a thread may outlive DROP FUNCTION. */

#include "gearman_resolve.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TICK_NANOSECONDS = 100000000, /* how often is_killed is asked */
    THREADS_MAX = 16,             /* left behind by a name server that does not answer */
    STACK_BYTES = 512 * 1024,
};

struct question {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    int holders; /* the thread and whoever waits; the last one frees it */
    bool is_answered;
    int result; /* of getaddrinfo */
    struct addrinfo *found;
    char host[256];
    char port[8];
};

static atomic_int threads;

static const struct addrinfo HINTS = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};

/* Called with the lock held, which is gone afterwards. */
static void let_go(struct question *question)
{
    bool is_last = --question->holders == 0;
    pthread_mutex_unlock(&question->lock);
    if (!is_last)
        return;
    if (question->found != NULL)
        freeaddrinfo(question->found);
    pthread_cond_destroy(&question->answered);
    pthread_mutex_destroy(&question->lock);
    free(question);
}

static void *answer(void *argument)
{
    struct question *question = argument;
    struct addrinfo *found = NULL;
    int result = getaddrinfo(question->host, question->port, &HINTS, &found);
    pthread_mutex_lock(&question->lock);
    question->result = result;
    question->found = result == 0 ? found : NULL;
    question->is_answered = true;
    pthread_cond_signal(&question->answered);
    let_go(question);
    atomic_fetch_sub(&threads, 1);
    return NULL;
}

static bool start_thread(struct question *question)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t thread;
    bool has_started;
    if (atomic_fetch_add(&threads, 1) >= THREADS_MAX) {
        atomic_fetch_sub(&threads, 1);
        return false;
    }
    /* The database server has a thread of its own for signals. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    has_started = pthread_create(&thread, &attributes, answer, question) == 0;
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!has_started)
        atomic_fetch_sub(&threads, 1);
    return has_started;
}

static struct question *ask(const char *host, const char *port)
{
    struct question *question = calloc(1, sizeof *question);
    pthread_condattr_t monotonic;
    if (question == NULL)
        return NULL;
    snprintf(question->host, sizeof question->host, "%s", host);
    snprintf(question->port, sizeof question->port, "%s", port);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&question->answered, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&question->lock, NULL);
    question->holders = 2;
    if (!start_thread(question)) {
        question->holders = 1;
        pthread_mutex_lock(&question->lock);
        let_go(question);
        return NULL;
    }
    return question;
}

bool gearman_resolve(const char *host, const char *port, struct gearman_wait *wait, struct addrinfo **found,
                  struct gearman_failure *failure)
{
    struct addrinfo numeric = HINTS;
    struct question *question;
    bool is_killed = false;
    int result;
    numeric.ai_flags |= AI_NUMERICHOST;
    if (getaddrinfo(host, port, &numeric, found) == 0)
        return true;
    question = ask(host, port);
    if (question == NULL)
        return gearman_set_failure(failure, GEARMAN_UNREACHABLE, "no thread to look up the name");
    pthread_mutex_lock(&question->lock);
    while (!question->is_answered && gearman_now() < wait->deadline && !is_killed) {
        int64_t until = gearman_earlier(wait->deadline, gearman_now() + TICK_NANOSECONDS);
        struct timespec at = {.tv_sec = until / GEARMAN_SECOND, .tv_nsec = until % GEARMAN_SECOND};
        pthread_cond_timedwait(&question->answered, &question->lock, &at);
        is_killed = wait->is_killed != NULL && wait->is_killed();
    }
    if (!question->is_answered) {
        let_go(question);
        if (is_killed)
            return gearman_set_failure(failure, GEARMAN_KILLED, "the statement was killed");
        return gearman_set_failure(failure, GEARMAN_UNREACHABLE, "the name was not looked up in time");
    }
    result = question->result;
    *found = question->found;
    question->found = NULL;
    let_go(question);
    return result == 0 || gearman_set_failure(failure, GEARMAN_UNREACHABLE, "%s", gai_strerror(result));
}
