package slowlog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// explainMySQL asks MySQL or MariaDB. It runs nothing.
func explainMySQL(ctx context.Context, conn *sql.Conn, j *job, _ Mode) (plan *QueryPlan, err error) {
	err = readOnly(ctx, conn, func(tx *sql.Tx) error {
		return queryPrepared(ctx, tx, "EXPLAIN FORMAT=JSON "+j.sql, j.args, func(rows *sql.Rows) error {
			for rows.Next() {
				var doc []byte
				if err := rows.Scan(&doc); err != nil {
					return err
				}
				if plan, err = parseMySQL(doc); err != nil {
					return err
				}
			}
			return rows.Err()
		})
	})
	if err == nil && plan == nil {
		err = errNoMySQLPlan
	}
	return plan, err
}

var errNoMySQLPlan = errors.New("slowlog: the plan is not the JSON of MySQL")

// mysqlFlags are the properties that are written as their name alone.
var mysqlFlags = []string{"using_filesort", "using_temporary_table", "using_index", "dependent", "cacheable", "using_join_buffer"}

// parseMySQL reads the nested objects: each of them with a table_name is a step.
// Only properties that are named here are written.
func parseMySQL(doc []byte) (*QueryPlan, error) {
	var root map[string]any
	if json.Unmarshal(doc, &root) != nil || root["query_block"] == nil {
		return nil, errNoMySQLPlan
	}
	p := &QueryPlan{}
	var b strings.Builder
	steps := 0
	var walk func(key string, v any, depth int)
	walk = func(key string, v any, depth int) {
		if steps++; steps > maxSteps || depth > maxNesting {
			return
		}
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(key, e, depth)
			}
		case map[string]any:
			if b.Len() <= maxPlanText {
				fmt.Fprintf(&b, "%s%s\n", strings.Repeat("  ", depth), mysqlStep(key, v))
			}
			name, _ := v["table_name"].(string)
			if access, _ := v["access_type"].(string); access == "ALL" && !strings.HasPrefix(name, "<") {
				rows := mysqlNumber(v, "rows_examined_per_scan", "rows")
				if rows < 0 || rows >= smallTable {
					p.fullScan("table scan", name, int64(rows), mysqlNumber(v, "rows_produced_per_join"))
				}
			}
			for _, k := range slices.Sorted(maps.Keys(v)) {
				switch v[k].(type) {
				case []any, map[string]any:
					if k != "cost_info" && k != "used_columns" && k != "used_key_parts" && k != "possible_keys" && k != "ref" {
						walk(k, v[k], depth+1)
					}
				}
			}
		}
	}
	walk("query_block", root["query_block"], 0)
	p.Text = cut(strings.TrimSuffix(b.String(), "\n"), maxPlanText)
	return p, nil
}

func mysqlStep(key string, v map[string]any) string {
	parts := []string{cut(key, maxLabel)}
	if name, ok := v["table_name"].(string); ok {
		parts[0] += " " + cut(name, maxLabel)
	}
	for _, p := range []string{"access_type", "key"} {
		if s, ok := v[p].(string); ok {
			parts = append(parts, p+" "+cut(s, maxLabel))
		}
	}
	for _, p := range []string{"rows_examined_per_scan", "rows", "filtered"} {
		if n := mysqlNumber(v, p); n >= 0 {
			parts = append(parts, p+" "+strconv.FormatFloat(n, 'f', -1, 64))
		}
	}
	for _, p := range mysqlFlags {
		if v[p] == true {
			parts = append(parts, p)
		}
	}
	if cond, ok := v["attached_condition"].(string); ok {
		parts = append(parts, "condition "+redactExpr(cond))
	}
	return strings.Join(parts, ", ")
}

// mysqlNumber returns the first of the properties that is there, or -1. MySQL
// writes some of its numbers as strings.
func mysqlNumber(v map[string]any, properties ...string) float64 {
	for _, p := range properties {
		switch n := v[p].(type) {
		case float64:
			return n
		case string:
			if f, err := strconv.ParseFloat(n, 64); err == nil {
				return f
			}
		}
	}
	return -1
}
