package slowlog

import (
	"context"
	"database/sql"
	"strings"
)

// explainSQLite asks SQLite, which says how it would read each table and no
// numbers. It runs nothing.
func explainSQLite(ctx context.Context, conn *sql.Conn, j *job, _ Mode) (plan *QueryPlan, err error) {
	err = queryPrepared(ctx, conn, "EXPLAIN QUERY PLAN "+j.sql, j.args, func(rows *sql.Rows) (err error) {
		plan, err = readSQLite(rows)
		return err
	})
	return plan, err
}

// readSQLite reads rows of id, parent, an unused column, and detail.
func readSQLite(rows *sql.Rows) (*QueryPlan, error) {
	p := &QueryPlan{}
	depth := make(map[int64]int)
	var b strings.Builder
	for n := 0; rows.Next(); n++ {
		var id, parent int64
		var unused any
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			return nil, err
		}
		if n >= maxSteps {
			continue
		}
		detail = redactDetail(detail)
		d := min(depth[parent], maxNesting)
		depth[id] = d + 1
		if b.Len() <= maxPlanText {
			b.WriteString(strings.Repeat("  ", d) + detail + "\n")
		}
		if table, ok := sqliteScan(detail); ok {
			p.fullScan("SCAN", table, -1, -1)
		}
	}
	p.Text = cut(strings.TrimSuffix(b.String(), "\n"), maxPlanText)
	return p, rows.Err()
}

// sqliteScan returns the table or alias that a step reads whole without an index:
// "SCAN orders", before 3.36 "SCAN TABLE orders AS o". An automatic index is
// built from the whole table for this one statement.
func sqliteScan(detail string) (table string, ok bool) {
	words := strings.Fields(detail)
	if len(words) < 2 {
		return "", false
	}
	rest := words[1:]
	if rest[0] == "TABLE" && len(rest) > 1 {
		rest = rest[1:]
	}
	table = rest[0]
	options := strings.Join(rest[1:], " ")
	switch words[0] {
	case "SEARCH":
		return table, strings.Contains(options, "AUTOMATIC")
	case "SCAN":
		switch {
		case table == "CONSTANT", table == "SUBQUERY", strings.HasPrefix(table, "("), strings.Contains(options, "CONSTANT ROW"),
			strings.Contains(options, "VIRTUAL TABLE"), strings.Contains(options, "USING"):
			return "", false
		}
		return table, true
	}
	return "", false
}

// redactDetail writes "?" for what stands in single quotes. SQLite writes no
// values into details; a virtual table may.
func redactDetail(detail string) string {
	parts := strings.Split(detail, "'")
	for i := 1; i < len(parts); i += 2 {
		parts[i] = "?"
	}
	return strings.Join(parts, "")
}
