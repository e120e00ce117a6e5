#include "database_server.h"

#include <dlfcn.h>
#include <stddef.h>

enum {
    ER_UNKNOWN_ERROR = 1105,     /* SQLSTATE HY000, in both servers */
    ER_QUERY_INTERRUPTED = 1317, /* 70100 */
    MARIADB_ME_NOTE = 1024,  /* my_sys.h */
    MARIADB_ME_WARNING = 2048,
    MYSQL_SL_NOTE = 0, /* Sql_condition::enum_severity_level */
    MYSQL_SL_WARNING = 1,
};

/* MariaDB: C symbols. */
static void *(*mariadb_current_thd)(void);
static int (*mariadb_kill_level)(const void *thd); /* 0: not killed */
static void (*mariadb_printf_error)(unsigned error, const char *format, unsigned long flags, ...);

/* MySQL: mostly C++ symbols, as 9.7 has them. */
static void *(*mysql_current_thd)(void);
static int (*mysql_killed)(const void *thd);
static void (*mysql_printf_error)(unsigned error, const char *format, int flags, ...);
static void (*mysql_push_warning)(void *thd, int severity, unsigned code, const char *format, ...);

static void look_up(const char *name, void *function)
{
    *(void **)function = dlsym(RTLD_DEFAULT, name);
}

__attribute__((constructor)) static void look_up_all(void)
{
    look_up("_Z19thd_get_current_thdv", &mysql_current_thd);
    if (mysql_current_thd != NULL) {
        look_up("thd_killed", &mysql_killed);
        look_up("_Z15my_printf_errorjPKciz", &mysql_printf_error);
        look_up("_Z19push_warning_printfP3THDN13Sql_condition19enum_severity_levelEjPKcz", &mysql_push_warning);
    } else {
        look_up("_current_thd", &mariadb_current_thd);
        look_up("thd_kill_level", &mariadb_kill_level);
        look_up("my_printf_error", &mariadb_printf_error);
    }
}

bool database_is_killed(void)
{
    void *thd;
    if (mysql_current_thd != NULL && mysql_killed != NULL)
        return (thd = mysql_current_thd()) != NULL && mysql_killed(thd) != 0;
    if (mariadb_current_thd != NULL && mariadb_kill_level != NULL)
        return (thd = mariadb_current_thd()) != NULL && mariadb_kill_level(thd) != 0;
    return false;
}

static bool add_condition(unsigned long mariadb_flag, int mysql_severity, const char *text)
{
    void *thd;
    if (mysql_push_warning != NULL && (thd = mysql_current_thd()) != NULL)
        mysql_push_warning(thd, mysql_severity, ER_UNKNOWN_ERROR, "%s", text);
    else if (mariadb_printf_error != NULL)
        mariadb_printf_error(ER_UNKNOWN_ERROR, "%s", mariadb_flag, text);
    else
        return false;
    return true;
}

bool database_note(const char *text)
{
    return add_condition(MARIADB_ME_NOTE, MYSQL_SL_NOTE, text);
}

bool database_warn(const char *text)
{
    return add_condition(MARIADB_ME_WARNING, MYSQL_SL_WARNING, text);
}

static bool raise_error(unsigned error, const char *text)
{
    if (mysql_printf_error != NULL)
        mysql_printf_error(error, "%s", 0, text);
    else if (mariadb_printf_error != NULL)
        mariadb_printf_error(error, "%s", 0, text);
    else
        return false;
    return true;
}

bool database_raise(const char *text)
{
    return raise_error(ER_UNKNOWN_ERROR, text);
}

bool database_interrupt(void)
{
    return raise_error(ER_QUERY_INTERRUPTED, "Query execution was interrupted");
}
