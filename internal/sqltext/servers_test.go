package sqltext

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorminfra/infra/internal/testbed"
)

// servers opens the corpus' schema on the primary and on a replica that has it.
func servers(t *testing.T) (primary, replica *pgx.Conn) {
	t.Helper()
	c := testbed.SharedCluster(t)
	db := c.NewDatabase(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	open := func(n *testbed.Node) *pgx.Conn {
		conn, err := n.Conn(ctx, db)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.WithoutCancel(ctx)) })
		return conn
	}
	primary = open(c.Primary())
	if err := simple(ctx, primary, schema); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitCaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	replica = open(c.Replica(0))
	var recovering bool
	if err := replica.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&recovering); err != nil || !recovering {
		t.Fatalf("the replica is none: %v, %v", recovering, err)
	}
	return primary, replica
}

// simple runs text as it is, by the simple protocol, and drops the answer.
func simple(ctx context.Context, conn *pgx.Conn, text string) error {
	_, err := conn.PgConn().Exec(ctx, text).ReadAll()
	return err
}

// R06: what is called read-only is taken by a hot standby and changes nothing on
// the primary; the rest a standby refuses, or the corpus says that it locks, uses
// the session, or the like.
func TestR06CorpusAgainstHotStandby(t *testing.T) {
	t.Parallel()
	primary, replica := servers(t)
	ctx := t.Context()
	for _, row := range corpus {
		st := Parse(row.text)
		if st.ReadOnly() != (row.want == reads) {
			t.Errorf("%s\n is %s", row.text, describe(st))
		}
		err := simple(ctx, replica, row.text)
		if row.want == reads && err != nil || (row.want == refused) != isStandby(err) {
			t.Errorf("%s\n the replica answers %v", row.text, err)
		}
		for _, reset := range []string{"ROLLBACK", "DEALLOCATE ALL", "RESET ALL"} {
			if err := simple(ctx, replica, reset); err != nil {
				t.Fatal(err)
			}
		}
		if row.want == reads && !strings.Contains(row.text, "pg_is_wal_replay_paused") { // which the primary refuses
			checkChangesNothing(ctx, t, primary, row.text)
		}
	}
}

// isStandby reports whether err is a standby's refusal.
func isStandby(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "25006" || strings.Contains(pg.Message, "recovery") || strings.Contains(pg.Hint, "recovery"))
}

// checkChangesNothing runs text in a transaction of the primary and fails when it
// assigned a transaction id, left a lock on rows or an advisory one, or changed a
// setting, none of which a read-only statement may do.
func checkChangesNothing(ctx context.Context, t *testing.T, primary *pgx.Conn, text string) {
	t.Helper()
	const state = `SELECT coalesce(pg_current_xact_id_if_assigned()::text, '') || ' '
		|| (SELECT count(*) FROM pg_locks WHERE (locktype = 'advisory' OR mode NOT IN ('AccessShareLock', 'ExclusiveLock') AND relation IS NOT NULL) AND pid = pg_backend_pid()) || ' '
		|| (SELECT md5(string_agg(name || setting, ',' ORDER BY name)) FROM pg_settings)`
	tx, err := primary.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	var before, after string
	if err := tx.QueryRow(ctx, state).Scan(&before); err != nil {
		t.Fatal(err)
	}
	if err := simple(ctx, primary, text); err != nil {
		t.Errorf("%s\n the primary answers %v", text, err)
		return
	}
	if err := tx.QueryRow(ctx, state).Scan(&after); err != nil {
		t.Fatal(err)
	}
	if before != after && !strings.HasPrefix(text, "EXPLAIN") { // planning locks as execution would
		t.Errorf("%s\n is no read: the session went from %s to %s", text, before, after)
	}
}

// The tables that a text names are those on which Postgres' own parser makes it
// depend, and the planner opens no others than these, their partitions, and what
// is below views.
func TestTablesAreThoseOfTheServer(t *testing.T) {
	t.Parallel()
	primary, _ := servers(t)
	ctx := t.Context()
	compared := 0
	for _, row := range corpus {
		st := Parse(row.text)
		named := tableNames(st)
		switch {
		case st.System, strings.Contains(row.text, "'users'"): // a regclass is a dependency, too
			continue
		case st.Operation == Select && st.Writes == nil, st.Operation == Insert, st.Operation == Update, st.Operation == Delete:
			depends, err := dependencies(ctx, primary, row.text)
			if err != nil {
				t.Errorf("%s\n %v", row.text, err)
			} else if !slices.Equal(named, depends) {
				t.Errorf("%s\n names %v, the server %v", row.text, named, depends)
			}
		case st.Operation != Select && st.Operation != Merge:
			continue
		}
		opened, err := planned(ctx, primary, row.text)
		if err != nil {
			t.Errorf("EXPLAIN %s\n %v", row.text, err)
			continue
		}
		below, err := closure(ctx, primary, named)
		if err != nil {
			t.Fatal(err)
		}
		for _, relation := range opened {
			if !slices.Contains(below, relation) {
				t.Errorf("%s\n names %v, the planner opens %s", row.text, named, relation)
			}
		}
		compared++
	}
	if compared < 100 {
		t.Errorf("only %d statements were compared", compared)
	}
}

// tableNames are the tables read and written, sorted, without the schema public.
func tableNames(st *Statement) []string {
	var names []string
	for _, table := range slices.Concat(st.Reads, st.Writes) {
		names = append(names, strings.TrimPrefix(table.String(), "public."))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

const relationName = `CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname`

// dependencies are the relations on which text depends once Postgres has parsed
// and analysed it, as the body of a function.
func dependencies(ctx context.Context, conn *pgx.Conn, text string) ([]string, error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback(ctx)
	if err := simple(ctx, conn, "CREATE FUNCTION body() RETURNS void LANGUAGE sql BEGIN ATOMIC\n"+text+"\n;END"); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `SELECT DISTINCT `+relationName+` COLLATE "C" FROM pg_depend d JOIN pg_class c ON d.refobjid = c.oid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE d.classid = 'pg_proc'::regclass AND d.objid = (SELECT oid FROM pg_proc WHERE proname = 'body') AND d.refclassid = 'pg_class'::regclass AND (c.relkind <> 'S' OR $1 ~ 'FROM seq') ORDER BY 1`, text)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// planned are the relations that EXPLAIN names.
func planned(ctx context.Context, conn *pgx.Conn, text string) ([]string, error) {
	results, err := conn.PgConn().Exec(ctx, "EXPLAIN (FORMAT JSON, VERBOSE) "+strings.TrimLeft(text, " \t\r\n\f")).ReadAll()
	if err != nil {
		return nil, err
	}
	var plan any
	if err := json.Unmarshal(results[0].Rows[0][0], &plan); err != nil {
		return nil, err
	}
	var names []string
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if name, ok := v["Relation Name"].(string); ok {
				names = append(names, strings.TrimPrefix(fmt.Sprintf("%s.%s", v["Schema"], name), "public."))
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(plan)
	return names, nil
}

// closure adds to names the partitions of tables and what is below views.
func closure(ctx context.Context, conn *pgx.Conn, names []string) ([]string, error) {
	rows, err := conn.Query(ctx, `WITH RECURSIVE below(oid) AS (
			SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE `+relationName+` = ANY($1)
			UNION
			SELECT e.child FROM below b JOIN (
				SELECT inhparent AS parent, inhrelid AS child FROM pg_inherits
				UNION ALL
				SELECT r.ev_class, d.refobjid FROM pg_rewrite r JOIN pg_depend d ON d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
			) e ON e.parent = b.oid)
		SELECT `+relationName+` FROM below b JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace`, names)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
