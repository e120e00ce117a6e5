/* The interface between a database server and its loadable functions, the same in MariaDB 10.6+ and MySQL 8+.
 *
 * Written here because neither package of headers serves both: mariadb_com.h of the MariaDB connector declares
 * max_length as unsigned int, where both servers have unsigned long, and leaves out the last members of both.
 */

#ifndef UDF_ABI_H
#define UDF_ABI_H

#include <stdbool.h>

enum { UDF_MESSAGE_SIZE = 512 }; /* of the buffer that _init gets for its refusal */
enum { UDF_RESULT_SIZE = 255 };  /* of the buffer that a string function gets for a short result */

enum Item_result { STRING_RESULT = 0, REAL_RESULT, INT_RESULT, ROW_RESULT, DECIMAL_RESULT };

typedef struct UDF_ARGS {
    unsigned int arg_count;
    enum Item_result *arg_type; /* _init may change them: the server converts */
    char **args;                /* NULL for SQL's NULL; in _init also for what is not constant */
    unsigned long *lengths;
    char *maybe_null;
    char **attributes;
    unsigned long *attribute_lengths;
    void *extension;
} UDF_ARGS;

typedef struct UDF_INIT {
    bool maybe_null;
    unsigned int decimals;
    unsigned long max_length;
    char *ptr; /* ours, from _init to _deinit */
    bool const_item;
    void *extension;
} UDF_INIT;

#endif
