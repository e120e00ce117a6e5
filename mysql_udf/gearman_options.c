#include "gearman_options.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { SECONDS, BYTES, ERRORS, FLAG };

static const struct option {
    const char *name;
    size_t offset;
    enum kind kind;
    double least; /* of numbers, in the unit of the setting */
    double most;
} OPTIONS[] = {
    {"connect_timeout", offsetof(struct gearman_options, connect_timeout), SECONDS, 0.001, 3600},
    {"timeout", offsetof(struct gearman_options, timeout), SECONDS, 0.001, 86400},
    {"background_timeout", offsetof(struct gearman_options, background_timeout), SECONDS, 0.001, 3600},
    {"back_off", offsetof(struct gearman_options, back_off), SECONDS, 0, 3600},
    {"result_max", offsetof(struct gearman_options, result_max), BYTES, 1, 1 << 30},
    {"errors", offsetof(struct gearman_options, errors), ERRORS, 0, 0},
    {"locked", offsetof(struct gearman_options, locked), FLAG, 0, 0},
};

/* max_allowed_packet is 16 MiB, as MariaDB sets it. */
#define DEFAULTS                                                                                                       \
    {                                                                                                                  \
        .connect_timeout = 3 * GEARMAN_SECOND, .timeout = 30 * GEARMAN_SECOND, .background_timeout = 5 * GEARMAN_SECOND,        \
        .back_off = 10 * GEARMAN_SECOND, .result_max = 16 * 1024 * 1024,                                                  \
    }

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct gearman_options options = DEFAULTS; /* guarded by lock */

struct gearman_options gearman_options_get(void)
{
    struct gearman_options found;
    pthread_mutex_lock(&lock);
    found = options;
    pthread_mutex_unlock(&lock);
    return found;
}

static const struct option *find(const char *name, size_t length, struct gearman_failure *failure)
{
    for (size_t i = 0; i < sizeof OPTIONS / sizeof *OPTIONS; i++)
        if (strlen(OPTIONS[i].name) == length && memcmp(OPTIONS[i].name, name, length) == 0)
            return &OPTIONS[i];
    gearman_set_failure(failure, GEARMAN_BAD_CALL, "there is no option %.*s", length < 100 ? (int)length : 100, name);
    return NULL;
}

static int64_t *place(struct gearman_options *of, const struct option *option)
{
    return (int64_t *)((char *)of + option->offset);
}

static void show(const struct option *option, int64_t value, char *text)
{
    switch (option->kind) {
    case SECONDS:
        snprintf(text, GEARMAN_OPTION_SIZE, "%g", (double)value / (double)GEARMAN_SECOND);
        break;
    case ERRORS:
        snprintf(text, GEARMAN_OPTION_SIZE, "%s", value ? "error" : "warning");
        break;
    default:
        snprintf(text, GEARMAN_OPTION_SIZE, "%lld", (long long)value);
    }
}

static bool parse(const struct option *option, const char *value, size_t length, int64_t *number,
                  struct gearman_failure *failure)
{
    char text[GEARMAN_OPTION_SIZE], *end;
    double read;
    snprintf(text, sizeof text, "%.*s", length < sizeof text ? (int)length : (int)sizeof text - 1, value);
    if (option->kind == ERRORS) {
        *number = strcmp(text, "error") == 0;
        return *number || strcmp(text, "warning") == 0 ||
               gearman_set_failure(failure, GEARMAN_BAD_CALL, "errors is error or warning, not %s", text);
    }
    if (option->kind == FLAG) {
        *number = strcmp(text, "1") == 0;
        return *number || strcmp(text, "0") == 0 ||
               gearman_set_failure(failure, GEARMAN_BAD_CALL, "%s is 0 or 1, not %s", option->name, text);
    }
    read = strtod(text, &end);
    if (length == 0 || length >= sizeof text || *end != 0 || !isfinite(read) || read < option->least ||
        read > option->most)
        return gearman_set_failure(failure, GEARMAN_BAD_CALL, "%s is a number from %g to %.10g, not %s", option->name,
                                option->least, option->most, text);
    *number = (int64_t)(option->kind == SECONDS ? read * (double)GEARMAN_SECOND : read);
    return true;
}

bool gearman_option_set(const char *name, size_t name_length, const char *value, size_t value_length, char *text,
                     struct gearman_failure *failure)
{
    const struct option *option = find(name, name_length, failure);
    struct gearman_options defaults = DEFAULTS;
    int64_t number;
    bool is_locked;
    if (option == NULL)
        return false;
    number = *place(&defaults, option);
    if (value != NULL && !parse(option, value, value_length, &number, failure))
        return false;
    pthread_mutex_lock(&lock);
    is_locked = options.locked;
    if (!is_locked)
        *place(&options, option) = number;
    pthread_mutex_unlock(&lock);
    if (is_locked)
        return gearman_set_failure(failure, GEARMAN_BAD_CALL, "servers and options are locked");
    show(option, number, text);
    return true;
}

bool gearman_option_show(const char *name, size_t name_length, char *text, struct gearman_failure *failure)
{
    const struct option *option = find(name, name_length, failure);
    struct gearman_options found = gearman_options_get();
    if (option == NULL)
        return false;
    show(option, *place(&found, option), text);
    return true;
}
