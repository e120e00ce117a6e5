#include "report.h"

#include "database_server.h"

#include <stdio.h>
#include <string.h>

enum { MESSAGE_SIZE = 512 }; /* the servers cut what is longer */

/* The length of the UTF-8 character at text, 0 if there is none. */
static size_t character_length(const unsigned char *text, size_t length)
{
    size_t wanted = text[0] < 0x80 ? 1 : text[0] < 0xc2 ? 0 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : text[0] < 0xf5 ? 4 : 0;
    if (wanted == 0 || wanted > length)
        return 0;
    for (size_t i = 1; i < wanted; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    /* Overlong forms, surrogates and what is beyond the last character. */
    if ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f) || (text[0] == 0xf0 && text[1] < 0x90) ||
        (text[0] == 0xf4 && text[1] > 0x8f))
        return 0;
    return wanted;
}

void report_showable(char *place, size_t size, const unsigned char *text, size_t length)
{
    size_t used = 0;
    while (length > 0) {
        size_t taken = character_length(text, length);
        bool is_shown = taken > 1 || (taken == 1 && text[0] >= ' ' && text[0] != 0x7f);
        if (used + (taken > 1 ? taken : 1) >= size)
            break;
        if (is_shown)
            memcpy(place + used, text, taken);
        else
            place[used] = taken == 1 && (text[0] == '\n' || text[0] == '\t') ? ' ' : '?';
        used += is_shown ? taken : 1;
        text += taken > 0 ? taken : 1;
        length -= taken > 0 ? taken : 1;
    }
    place[used] = 0;
}

void report(const char *function, const struct gearman_failure *failure, bool is_sql_error, unsigned char *is_null,
            unsigned char *error)
{
    char text[GEARMAN_TEXT_SIZE], message[MESSAGE_SIZE];
    *is_null = 1;
    if (failure->error == GEARMAN_KILLED) {
        database_interrupt();
        return;
    }
    report_showable(text, sizeof text, (const unsigned char *)failure->text, strlen(failure->text));
    snprintf(message, sizeof message, "%s: %s", function, text);
    if (!is_sql_error)
        database_warn(message);
    else if (!database_raise(message))
        *error = 1; /* NULL for this row and all that follow in the statement */
}

void report_note(const unsigned char *text, size_t length)
{
    char message[MESSAGE_SIZE];
    report_showable(message, sizeof message, text, length);
    database_note(message);
}
