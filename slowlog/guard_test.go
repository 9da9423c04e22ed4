package slowlog

import (
	"strings"
	"testing"

	"github.com/gorminfra/infra/internal/sqltext"
)

// disguises are statements that write, lock, signal or change the session, in
// ways that look like reads. The tables and the sequence exist in the tests that
// run them.
var disguises = []string{
	`INSERT INTO wolves (name) VALUES ('x')`,
	`UPDATE wolves SET name = 'x'`,
	`DELETE FROM wolves`,
	`TRUNCATE wolves`,
	`MERGE INTO wolves w USING (SELECT 1 AS id) s ON w.id = s.id WHEN MATCHED THEN DELETE`,
	`WITH d AS (DELETE FROM wolves RETURNING id) SELECT count(*) FROM d`,
	`WITH a AS (SELECT 1), b AS (INSERT INTO wolves (name) VALUES ('x') RETURNING id) SELECT * FROM a, b`,
	`/* SELECT */ DELETE FROM wolves -- SELECT`,
	`  ( WITH d AS (UPDATE wolves SET name = 'x' RETURNING id) SELECT * FROM d )`,
	`SELECT * INTO den FROM wolves`,
	`CREATE TABLE den AS SELECT * FROM wolves`,
	`CREATE TABLE den AS TABLE wolves`,
	`CREATE MATERIALIZED VIEW den AS SELECT 1`,
	`EXPLAIN ANALYZE DELETE FROM wolves`,
	`EXPLAIN (ANALYZE) INSERT INTO wolves (name) VALUES ('x')`,
	`EXPLAIN SELECT 1`,
	`SELECT 1; DELETE FROM wolves`,
	`SELECT 1;DELETE FROM wolves;`,
	`SELECT * FROM wolves FOR UPDATE`,
	`SELECT * FROM wolves FOR NO KEY UPDATE SKIP LOCKED`,
	`SELECT * FROM wolves FOR SHARE`,
	`SELECT * FROM (SELECT * FROM wolves FOR KEY SHARE) w`,
	`SELECT nextval('howls')`,
	`SELECT setval('howls', 1)`,
	`VALUES (nextval('howls'))`,
	`SELECT id FROM wolves WHERE id = nextval('howls')`,
	`SELECT id FROM wolves LIMIT nextval('howls')`,
	`SELECT pg_notify('howl', 'x')`,
	`SELECT "pg_notify"('howl', 'x')`,
	`SELECT PG_NOTIFY('howl', 'x')`,
	`SELECT pg_catalog.pg_notify('howl', 'x')`,
	`SELECT pg_catalog . "pg_notify" /* , */ ('howl', 'x')`,
	`SELECT U&"pg\005fnotify"('howl', 'x')`,
	`SELECT * FROM pg_notify('howl', 'x')`,
	`SELECT * FROM wolves, LATERAL pg_notify('howl', name)`,
	`SELECT count(*) FILTER (WHERE pg_notify('howl', 'x') IS NULL) FROM wolves`,
	`SELECT CASE WHEN EXISTS (SELECT pg_notify('howl', 'x')) THEN 1 END`,
	`SELECT row_number() OVER (ORDER BY pg_advisory_lock(id)) FROM wolves`,
	`SELECT pg_advisory_lock(1)`,
	`SELECT pg_try_advisory_xact_lock(1)`,
	`SELECT pg_advisory_unlock_all()`,
	`SELECT set_config('work_mem', '1MB', false)`,
	`SELECT setseed(0.5)`,
	`SELECT lo_create(0)`,
	`SELECT lo_unlink(1)`,
	`SELECT lo_from_bytea(0, 'x')`,
	`SELECT pg_terminate_backend(0)`,
	`SELECT pg_cancel_backend(0)`,
	`SELECT pg_reload_conf()`,
	`SELECT pg_switch_wal()`,
	`SELECT pg_create_restore_point('x')`,
	`SELECT pg_logical_emit_message(false, 'x', 'y')`,
	`SELECT pg_stat_reset()`,
	`SELECT pg_read_file('PG_VERSION')`,
	`SELECT pg_ls_dir('.')`,
	`SELECT query_to_xml('DELETE FROM wolves', true, true, '')`,
	`SELECT txid_current()`,
	`SELECT pg_current_xact_id()`,
	`SELECT bite(1)`,
	`SELECT public.bite(1)`,
	`SELECT * FROM wolves WHERE id = "bite"(1)`,
	`SELECT dblink_exec('DELETE FROM wolves')`,
	`DO $$ BEGIN DELETE FROM wolves; END $$`,
	`CALL hunt()`,
	`PREPARE p AS DELETE FROM wolves`,
	`EXECUTE p`,
	`DECLARE c CURSOR FOR SELECT 1`,
	`COPY wolves TO '/dev/null'`,
	`COPY (DELETE FROM wolves RETURNING id) TO STDOUT`,
	`LOCK TABLE wolves`,
	`SET work_mem = '1MB'`,
	`NOTIFY howl`,
	`LISTEN howl`,
	`VACUUM wolves`,
	`REFRESH MATERIALIZED VIEW den`,
	`DROP TABLE wolves`,
	`GRANT SELECT ON wolves TO public`,
	`SELECT 'unterminated`,
	`SELECT 1 /*! ; DELETE FROM wolves */`,
	``,
	`;`,
}

func TestNothingButACertainReadIsExplained(t *testing.T) {
	t.Parallel()
	for _, text := range disguises {
		if certainRead(sqltext.Analyze(text)) {
			t.Errorf("taken for a read: %s", text)
		}
	}
	for _, text := range []string{
		`SELECT 1`, `TABLE wolves`, `VALUES (1), (2)`, `(SELECT * FROM wolves) UNION ALL SELECT * FROM wolves;`,
		`SELECT * FROM wolves WHERE lower(name) = $1 ORDER BY id LIMIT 3`, `WITH w AS (SELECT * FROM wolves) SELECT count(*) FROM w`,
		`SELECT pg_sleep(0.1)`, `SELECT "nextval" FROM wolves`, `SELECT 'DELETE FROM wolves; nextval()'`,
	} {
		if !certainRead(sqltext.Analyze(text)) {
			t.Errorf("not taken for a read: %s", text)
		}
	}
}

func TestBlockedFunctionsStandForThemselves(t *testing.T) {
	t.Parallel()
	for _, f := range strings.Fields(`pg_notify PG_NOTIFY pg_catalog.pg_notify pg_advisory_lock pg_try_advisory_lock_shared set_config
		lo_create lo_export loread nextval setval pg_terminate_backend pg_cancel_backend dblink dblink_exec pg_read_file pg_ls_dir
		pg_logical_slot_get_changes pg_create_physical_replication_slot pg_promote txid_current query_to_xml load_extension get_lock`) {
		if !blocked(f) {
			t.Errorf("%s is not blocked", f)
		}
	}
	for _, f := range strings.Fields(`lower count pg_sleep now local to_char jsonb_agg pg_typeof pg_relation_size log length`) {
		if blocked(f) {
			t.Errorf("%s is blocked", f)
		}
	}
}
