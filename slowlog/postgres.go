package slowlog

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/gorminfra/infra/internal/sqltext"
)

// explainPostgres asks Postgres, and whatever speaks its language.
func explainPostgres(ctx context.Context, conn *sql.Conn, j *job, mode Mode) (plan *QueryPlan, err error) {
	err = readOnly(ctx, conn, func(tx *sql.Tx) error {
		for setting, d := range map[string]int64{
			"statement_timeout": j.timeout.Milliseconds(),
			"lock_timeout":      explainLockTimeout.Milliseconds(),
		} {
			if _, err := tx.ExecContext(ctx, fmt.Sprintf("SET LOCAL %s = %d", setting, d)); err != nil {
				return err
			}
		}
		if mode == Analyze {
			certain, err := certainInCatalog(ctx, tx, j.text)
			if err != nil {
				return err
			}
			if !certain {
				mode = Plan
			}
		}
		explain := "EXPLAIN (FORMAT JSON) "
		if mode == Analyze {
			// Without the time of each step: reading the clock for every row can take
			// longer than the statement, and its timeout is twice that.
			explain = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
		}
		var doc []byte
		err := queryPrepared(ctx, tx, explain+j.sql, j.args, func(rows *sql.Rows) error {
			for rows.Next() {
				if err := rows.Scan(&doc); err != nil {
					return err
				}
			}
			return rows.Err()
		})
		if err != nil {
			return err
		}
		root, err := parsePostgres(doc)
		if err != nil {
			return err
		}
		sizes, err := tableSizes(ctx, tx, root.scanned(), j.text)
		if err != nil {
			return err
		}
		plan = root.plan(mode == Analyze, sizes)
		return nil
	})
	return plan, err
}

// certainInCatalog asks the catalogue what the text cannot tell: whether a view
// or a row security policy hides a function, whether a volatile function has the
// name of a harmless one, is an operator or a cast, or is called like a column.
// $1 are the tables, $2 the functions, one on a line. Objects of the system have
// oids below 16384.
const catalogQuery = `SELECT NOT EXISTS (
	SELECT FROM unnest(string_to_array($1::text, chr(10))) AS t(name) LEFT JOIN pg_catalog.pg_class c ON c.oid = to_regclass(t.name)
	WHERE c.oid IS NULL OR c.relkind NOT IN ('r', 'p', 'm') OR c.relrowsecurity OR EXISTS (
		SELECT FROM pg_catalog.pg_proc p WHERE p.oid >= 16384 AND p.provolatile = 'v' AND p.pronargs = 1
		AND p.proargtypes[0] IN (c.reltype, 'record'::regtype, 'anyelement'::regtype, 'anynonarray'::regtype, 'anycompatible'::regtype))
) AND NOT EXISTS (
	SELECT FROM pg_catalog.pg_proc p WHERE p.oid >= 16384 AND p.provolatile = 'v' AND p.proname = ANY (string_to_array($2::text, chr(10)))
) AND NOT EXISTS (
	SELECT FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode WHERE o.oid >= 16384 AND p.provolatile = 'v'
) AND NOT EXISTS (
	SELECT FROM pg_catalog.pg_cast k JOIN pg_catalog.pg_proc p ON p.oid = k.castfunc WHERE k.oid >= 16384 AND p.provolatile = 'v'
)`

func certainInCatalog(ctx context.Context, tx *sql.Tx, text *sqltext.Statement) (certain bool, err error) {
	tables := make([]string, len(text.Reads))
	for i, t := range text.Reads {
		if strings.ContainsAny(t.String(), "\n") {
			return false, nil
		}
		tables[i] = sanitize(t)
	}
	err = queryPrepared(ctx, tx, catalogQuery, []any{strings.Join(tables, "\n"), strings.Join(text.Functions, "\n")}, func(rows *sql.Rows) error {
		for rows.Next() {
			if err := rows.Scan(&certain); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	return certain, err
}

// tableSizes asks for the number of rows that the statistics give to tables.
func tableSizes(ctx context.Context, tx *sql.Tx, tables []string, text *sqltext.Statement) (map[string]int64, error) {
	if len(tables) == 0 {
		return nil, nil
	}
	sizes := make(map[string]int64, len(tables))
	byName := make(map[string]string, len(tables))
	names := make([]string, 0, len(tables))
	for _, name := range tables {
		t := sqltext.Table{Name: name}
		for _, r := range text.Reads { // the plan does not say the schema
			if r.Name == name {
				t = r
			}
		}
		if !strings.ContainsAny(t.String(), "\n") {
			byName[sanitize(t)] = name
			names = append(names, sanitize(t))
		}
	}
	const query = `SELECT t.name, c.reltuples::bigint FROM unnest(string_to_array($1::text, chr(10))) AS t(name)
		JOIN pg_catalog.pg_class c ON c.oid = to_regclass(t.name)`
	err := queryPrepared(ctx, tx, query, []any{strings.Join(names, "\n")}, func(rows *sql.Rows) error {
		for rows.Next() {
			var name string
			var size int64
			if err := rows.Scan(&name, &size); err != nil {
				return err
			}
			sizes[byName[name]] = size
		}
		return rows.Err()
	})
	return sizes, err
}

func sanitize(t sqltext.Table) string {
	if t.Schema == "" {
		return pgx.Identifier{t.Name}.Sanitize()
	}
	return pgx.Identifier{t.Schema, t.Name}.Sanitize()
}
