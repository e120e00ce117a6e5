-- Takes away the functions of install.sql, and those of the classic library with these names.
DROP FUNCTION IF EXISTS gman_do;
DROP FUNCTION IF EXISTS gman_do_high;
DROP FUNCTION IF EXISTS gman_do_low;
DROP FUNCTION IF EXISTS gman_do_background;
DROP FUNCTION IF EXISTS gman_do_high_background;
DROP FUNCTION IF EXISTS gman_do_low_background;
DROP FUNCTION IF EXISTS gman_do_epoch;
DROP FUNCTION IF EXISTS gman_servers_set;
DROP FUNCTION IF EXISTS gman_servers_check;
DROP FUNCTION IF EXISTS gman_option_set;
DROP FUNCTION IF EXISTS gman_status;
DROP FUNCTION IF EXISTS gman_sum;
