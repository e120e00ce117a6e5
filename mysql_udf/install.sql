-- The functions of gman_udf.so, which `make install` puts into the server's plugin folder. Needs INSERT on the database mysql.
-- Those of the classic library have the same names: run uninstall.sql first.
CREATE FUNCTION gman_do RETURNS STRING SONAME 'gman_udf.so';
CREATE FUNCTION gman_do_high RETURNS STRING SONAME 'gman_udf.so';
CREATE FUNCTION gman_do_low RETURNS STRING SONAME 'gman_udf.so';
CREATE FUNCTION gman_do_background RETURNS STRING SONAME 'gman_udf.so';
CREATE FUNCTION gman_do_high_background RETURNS STRING SONAME 'gman_udf.so';
CREATE FUNCTION gman_do_low_background RETURNS STRING SONAME 'gman_udf.so';
CREATE FUNCTION gman_do_epoch RETURNS STRING SONAME 'gman_udf.so';
CREATE FUNCTION gman_servers_set RETURNS STRING SONAME 'gman_udf.so';
CREATE FUNCTION gman_servers_check RETURNS STRING SONAME 'gman_udf.so';
CREATE FUNCTION gman_option_set RETURNS STRING SONAME 'gman_udf.so';
CREATE FUNCTION gman_status RETURNS STRING SONAME 'gman_udf.so';
CREATE AGGREGATE FUNCTION gman_sum RETURNS INTEGER SONAME 'gman_udf.so';
