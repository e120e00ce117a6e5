/* What the files of functions share. */

#ifndef GMAN_UDF_H
#define GMAN_UDF_H

#include "gearman_servers.h"
#include "udf_abi.h"

#define UDF_EXPORT __attribute__((visibility("default"))) extern

/* What an _init returns to refuse a call; true always. */
bool udf_refuse(char *message, const char *text);
/* Make and free the bytes of an answer, initid->ptr; true: refused. max_length: of the answer. */
bool udf_init(UDF_INIT *initid, char *message, size_t max_length);
void udf_deinit(UDF_INIT *initid);
/* Return the bytes of the answer as a string function does; they stay until the next call. */
char *udf_answer(UDF_INIT *initid, char *result, unsigned long *length);

#endif
