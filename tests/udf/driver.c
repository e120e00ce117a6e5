/* Calls the functions as a database server does, from many threads, so that sanitizers can watch them.
 *
 *     driver SERVERS THREADS CALLS SEED
 *
 * Each thread makes CALLS calls, mostly of gman_do_background, with arguments that end where their memory ends. Prints how
 * many returned a value and how many NULL. Reports of the functions come back here; they must be UTF-8 on one line.
 */

#include "../../mysql_udf/udf_abi.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef char *string_function(UDF_INIT *, UDF_ARGS *, char *, unsigned long *, unsigned char *, unsigned char *);
typedef bool init_function(UDF_INIT *, UDF_ARGS *, char *);
typedef void deinit_function(UDF_INIT *);

#define DECLARE(name)                                                                                                  \
    init_function name##_init;                                                                                         \
    deinit_function name##_deinit;                                                                                     \
    string_function name;

DECLARE(gman_do)
DECLARE(gman_do_high)
DECLARE(gman_do_low_background)
DECLARE(gman_do_background)
DECLARE(gman_do_epoch)
DECLARE(gman_servers_set)
DECLARE(gman_servers_check)
DECLARE(gman_option_set)
DECLARE(gman_status)
init_function gman_sum_init;
deinit_function gman_sum_deinit;
void gman_sum_clear(UDF_INIT *, unsigned char *, unsigned char *);
void gman_sum_add(UDF_INIT *, UDF_ARGS *, unsigned char *, unsigned char *);
long long gman_sum(UDF_INIT *, UDF_ARGS *, unsigned char *, unsigned char *);

struct function {
    const char *name;
    init_function *init;
    deinit_function *deinit;
    string_function *call;
};

#define FUNCTION(name) {#name, name##_init, name##_deinit, name}

static const struct function FUNCTIONS[] = {
    FUNCTION(gman_do_background), FUNCTION(gman_do),        FUNCTION(gman_do_high),
    FUNCTION(gman_do_epoch),      FUNCTION(gman_status),    FUNCTION(gman_do_low_background),
    FUNCTION(gman_servers_check), FUNCTION(gman_option_set), FUNCTION(gman_servers_set),
};
enum { FUNCTION_COUNT = sizeof FUNCTIONS / sizeof *FUNCTIONS };

static const char *servers;
static long calls;
static atomic_long values, nulls, reports;

/* What the functions look up in MariaDB. */

__attribute__((visibility("default"))) void *_current_thd(void)
{
    return (void *)servers;
}

static _Thread_local unsigned kill_dice;

__attribute__((visibility("default"))) int thd_kill_level(const void *thd)
{
    (void)thd;
    return kill_dice != 0 && rand_r(&kill_dice) % 500 == 0;
}

__attribute__((visibility("default"))) void my_printf_error(unsigned error, const char *format, unsigned long flags, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, flags);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if ((error != 1105 && error != 1317) || strlen(text) == 0 || strlen(text) > 511)
        abort();
    for (const unsigned char *byte = (unsigned char *)text; *byte != 0; byte++)
        if (*byte < ' ' || *byte == 0x7f || *byte >= 0xf5)
            abort();
    atomic_fetch_add(&reports, 1);
}

/* Arguments: each in memory of its own size, so that reading on is found out. */

enum { ARGUMENTS_MAX = 4 };

struct arguments {
    UDF_ARGS args;
    enum Item_result types[ARGUMENTS_MAX];
    char *values[ARGUMENTS_MAX];
    unsigned long lengths[ARGUMENTS_MAX];
    char maybe_null[ARGUMENTS_MAX];
};

static void put(struct arguments *arguments, const char *value, size_t length)
{
    unsigned at = arguments->args.arg_count++;
    arguments->types[at] = STRING_RESULT;
    arguments->values[at] = value == NULL ? NULL : malloc(length > 0 ? length : 1);
    arguments->lengths[at] = length;
    if (value != NULL)
        memcpy(arguments->values[at], value, length);
}

static struct arguments *new_arguments(void)
{
    struct arguments *arguments = calloc(1, sizeof *arguments);
    arguments->args = (UDF_ARGS){.arg_type = arguments->types,
                                 .args = arguments->values,
                                 .lengths = arguments->lengths,
                                 .maybe_null = arguments->maybe_null};
    return arguments;
}

static void free_arguments(struct arguments *arguments)
{
    for (unsigned i = 0; i < arguments->args.arg_count; i++)
        free(arguments->values[i]);
    free(arguments);
}

/* The server converts what _init asked to be converted. */
static void convert(struct arguments *arguments)
{
    for (unsigned i = 0; i < arguments->args.arg_count; i++) {
        double real = 0.05;
        long long integer = 1;
        void *number = arguments->types[i] == REAL_RESULT ? (void *)&real : (void *)&integer;
        if (arguments->types[i] == STRING_RESULT || arguments->values[i] == NULL)
            continue;
        free(arguments->values[i]);
        arguments->values[i] = malloc(8);
        memcpy(arguments->values[i], number, 8);
    }
}

static void random_value(struct arguments *arguments, unsigned *dice)
{
    static const char noise[5000] = {0, 'x', '\xff', '\n', ',', ':'};
    switch (rand_r(dice) % 6) {
    case 0:
        return put(arguments, NULL, 0);
    case 1:
        return put(arguments, "", 0);
    case 2:
        return put(arguments, noise, (size_t)rand_r(dice) % sizeof noise);
    case 3:
        return put(arguments, "timeout", 7);
    default:
        return put(arguments, "17", 2);
    }
}

/* One call; its first argument, if not of the random kind, is given. */
static void call(const struct function *function, struct arguments *arguments)
{
    UDF_INIT initid = {0};
    char message[UDF_MESSAGE_SIZE];
    char *result = malloc(UDF_RESULT_SIZE), *found;
    unsigned long length = UDF_RESULT_SIZE;
    unsigned char is_null = 0, error = 0;
    if (!function->init(&initid, &arguments->args, message)) {
        convert(arguments);
        found = function->call(&initid, &arguments->args, result, &length, &is_null, &error);
        if (found == NULL || is_null || error) {
            atomic_fetch_add(&nulls, 1);
            usleep(1000); /* else the other threads' calls are all used up while one tries a silent server again */
        } else {
            volatile char last = length > 0 ? found[length - 1] : 0;
            (void)last;
            atomic_fetch_add(&values, 1);
        }
        function->deinit(&initid);
    }
    free(result);
}

static void call_sum(unsigned *dice)
{
    UDF_INIT initid = {0};
    char message[UDF_MESSAGE_SIZE];
    unsigned char is_null = 0, error = 0;
    struct arguments *arguments = new_arguments();
    put(arguments, "echo", 4);
    put(arguments, "1", 1);
    if (!gman_sum_init(&initid, &arguments->args, message)) {
        for (int group = 0; group < 2; group++) {
            gman_sum_clear(&initid, &is_null, &error);
            for (int row = rand_r(dice) % 150; row > 0; row--)
                gman_sum_add(&initid, &arguments->args, &is_null, &error);
            gman_sum(&initid, &arguments->args, &is_null, &error);
            atomic_fetch_add(is_null ? &nulls : &values, 1);
        }
        gman_sum_deinit(&initid);
    }
    free_arguments(arguments);
}

static void set(const struct function *function, const char *first, const char *second)
{
    struct arguments *arguments = new_arguments();
    put(arguments, first, strlen(first));
    if (second != NULL)
        put(arguments, second, strlen(second));
    call(function, arguments);
    free_arguments(arguments);
}

static void *run(void *argument)
{
    unsigned dice = (unsigned)(size_t)argument;
    kill_dice = dice | 1;
    for (long i = 0; i < calls; i++) {
        struct arguments *arguments = new_arguments();
        unsigned kind = (unsigned)rand_r(&dice) % 1000;
        if (kind < 980) {
            put(arguments, "background", 10);
            put(arguments, "workload", 8);
            call(&FUNCTIONS[0], arguments);
        } else if (kind < 982) {
            call_sum(&dice);
        } else if (kind < 990) {
            set(&FUNCTIONS[8], servers, kind < 985 ? NULL : "background");
        } else {
            for (int n = rand_r(&dice) % (ARGUMENTS_MAX + 1); n > 0; n--)
                random_value(arguments, &dice);
            call(&FUNCTIONS[kind % 6], arguments);
        }
        free_arguments(arguments);
    }
    return NULL;
}

int main(int count, char **words)
{
    pthread_t threads[64];
    int thread_count;
    unsigned seed;
    if (count != 5)
        return 2;
    servers = words[1];
    thread_count = atoi(words[2]) < 64 ? atoi(words[2]) : 64;
    calls = atol(words[3]);
    seed = (unsigned)atol(words[4]);
    set(&FUNCTIONS[8], servers, NULL);
    set(&FUNCTIONS[7], "timeout", "0.02");
    set(&FUNCTIONS[7], "background_timeout", "0.2");
    set(&FUNCTIONS[7], "connect_timeout", "0.1");
    set(&FUNCTIONS[7], "back_off", "0");
    for (int i = 0; i < thread_count; i++)
        if (pthread_create(&threads[i], NULL, run, (void *)(size_t)(seed + (unsigned)i)) != 0)
            return 2;
    for (int i = 0; i < thread_count; i++)
        pthread_join(threads[i], NULL);
    /* Without a list nothing keeps the servers and their connections: what is left then is a leak. */
    set(&FUNCTIONS[8], "", NULL);
    set(&FUNCTIONS[8], "", "background");
    printf("values=%ld nulls=%ld reports=%ld\n", values, nulls, reports);
    return 0;
}
