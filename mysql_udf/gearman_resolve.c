/* getaddrinfo() waits as long as resolv.conf says, and nothing can end it. So a thread calls it, and whoever does not get
 * the answer in time leaves the thread behind: it frees the question when getaddrinfo() returns. All that ask for a name
 * meanwhile wait for that same answer. The library is linked so that it is never unloaded, for such a thread may outlive
 * DROP FUNCTION. */

#include "gearman_resolve.h"

#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TICK_NANOSECONDS = 100000000, /* how often is_killed is asked */
    THREADS_MAX = 16,             /* one for each name; a name server that does not answer holds them for long */
    STACK_BYTES = 512 * 1024,
};

struct question {
    struct question *next; /* of those not yet answered */
    int holders;           /* the thread and all who wait; the last one frees it */
    bool is_answered;
    int result; /* of getaddrinfo */
    struct gearman_addresses addresses;
    char host[256];
    char port[8];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all that follows, and every question */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_cond_t answered; /* any question */
static struct question *questions;
static int threads;

static const struct addrinfo HINTS = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};

static void prepare(void)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&answered, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

/* Copy what getaddrinfo() found, and free it. */
static void keep(struct addrinfo *found, struct gearman_addresses *addresses)
{
    addresses->count = 0;
    for (struct addrinfo *next = found; next != NULL && addresses->count < GEARMAN_ADDRESSES_MAX; next = next->ai_next) {
        struct gearman_address *place = &addresses->found[addresses->count++];
        memcpy(&place->address, next->ai_addr, next->ai_addrlen);
        place->length = next->ai_addrlen;
    }
    freeaddrinfo(found);
}

/* Called with the lock held. */
static void let_go(struct question *question)
{
    if (--question->holders == 0)
        free(question);
}

static void *answer(void *argument)
{
    struct question *question = argument, **place = &questions;
    struct addrinfo *found = NULL;
    int result = getaddrinfo(question->host, question->port, &HINTS, &found);
    pthread_mutex_lock(&lock);
    question->result = result;
    if (result == 0)
        keep(found, &question->addresses);
    question->is_answered = true;
    while (*place != question)
        place = &(*place)->next;
    *place = question->next;
    threads--;
    pthread_cond_broadcast(&answered);
    let_go(question);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static bool start_thread(struct question *question)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t thread;
    bool has_started;
    /* The database server has a thread of its own for signals. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    has_started = pthread_create(&thread, &attributes, answer, question) == 0;
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return has_started;
}

/* Ask, or join those who asked the same. Called with the lock held; NULL: no thread is free. */
static struct question *ask(const char *host, const char *port)
{
    struct question *question;
    for (question = questions; question != NULL; question = question->next)
        if (strcmp(question->host, host) == 0 && strcmp(question->port, port) == 0) {
            question->holders++;
            return question;
        }
    question = threads < THREADS_MAX ? calloc(1, sizeof *question) : NULL;
    if (question == NULL)
        return NULL;
    snprintf(question->host, sizeof question->host, "%s", host);
    snprintf(question->port, sizeof question->port, "%s", port);
    if (!start_thread(question)) {
        free(question);
        return NULL;
    }
    threads++;
    question->holders = 2;
    question->next = questions;
    questions = question;
    return question;
}

/* Wait for an answer to any question, at most a tick. Called with the lock held; true: the statement was killed. */
static bool wait_a_tick(const struct gearman_wait *wait)
{
    int64_t until = gearman_earlier(wait->deadline, gearman_now() + TICK_NANOSECONDS);
    struct timespec at = {.tv_sec = until / GEARMAN_SECOND, .tv_nsec = until % GEARMAN_SECOND};
    bool is_killed;
    pthread_cond_timedwait(&answered, &lock, &at);
    pthread_mutex_unlock(&lock);
    is_killed = wait->is_killed != NULL && wait->is_killed();
    pthread_mutex_lock(&lock);
    return is_killed;
}

/* Set what the question was answered with, or why it was not. Called with the lock held. */
static bool conclude(const struct question *question, bool is_killed, struct gearman_addresses *addresses,
                     struct gearman_failure *failure)
{
    if (question != NULL && question->is_answered) {
        *addresses = question->addresses;
        return question->result == 0 ||
               gearman_set_failure(failure, GEARMAN_UNREACHABLE, "%s", gai_strerror(question->result));
    }
    if (is_killed)
        return gearman_set_failure(failure, GEARMAN_KILLED, "the statement was killed");
    if (question == NULL)
        return gearman_set_failure(failure, GEARMAN_BUSY, "no thread was free to look up the name");
    return gearman_set_failure(failure, GEARMAN_UNREACHABLE, "the name was not looked up in time");
}

bool gearman_resolve(const char *host, const char *port, struct gearman_wait *wait, struct gearman_addresses *addresses,
                  struct gearman_failure *failure)
{
    struct addrinfo numeric = HINTS, *found;
    struct question *question = NULL;
    bool is_killed = false, is_found;
    numeric.ai_flags |= AI_NUMERICHOST;
    if (getaddrinfo(host, port, &numeric, &found) == 0) {
        keep(found, addresses);
        return true;
    }
    pthread_once(&once, prepare);
    pthread_mutex_lock(&lock);
    while ((question == NULL || !question->is_answered) && !is_killed && gearman_now() < wait->deadline) {
        if (question == NULL)
            question = ask(host, port);
        is_killed = wait_a_tick(wait);
    }
    is_found = conclude(question, is_killed, addresses, failure);
    if (question != NULL)
        let_go(question);
    pthread_mutex_unlock(&lock);
    return is_found;
}
