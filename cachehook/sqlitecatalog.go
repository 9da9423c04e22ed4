package cachehook

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// SQLite's names are the same in any case; its own catalogue is small.
const (
	sqliteFile      = `SELECT file FROM pragma_database_list WHERE name = 'main'`
	sqliteRelations = `SELECT m.name, m.type, COALESCE(m.sql, ''),
	EXISTS (SELECT 1 FROM sqlite_master t WHERE t.type = 'trigger' AND lower(t.tbl_name) = lower(m.name))
	FROM sqlite_master m WHERE m.type IN ('table', 'view') AND m.name NOT LIKE 'sqlite\_%' ESCAPE '\'`
	// A lone INTEGER PRIMARY KEY holds integers alone; other columns hold anything.
	sqliteKeys = `SELECT m.name, max(c.name) FROM sqlite_master m JOIN pragma_table_info(m.name) c
	WHERE m.type = 'table' AND c.pk > 0 GROUP BY m.name HAVING count(*) = 1 AND max(upper(c.type)) = 'INTEGER'`
	sqliteForeignKeys = `SELECT m.name, f."table", f.on_delete, f.on_update
	FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'`
)

// sqliteReplaces finds constraints that delete rows which are in a write's way.
var sqliteReplaces = regexp.MustCompile(`(?is)\bCONFLICT\b.*\bREPLACE\b`)

// readSQLite reads tables and what foreign keys do. salt stands for a database
// that has no file. Views and virtual tables are
// not cached: the catalogue does not say what they read.
func readSQLite(ctx context.Context, q querier, salt string) (*catalog, error) {
	c := &catalog{folded: true, relations: make(map[string][]*relation)}
	file := ""
	if err := each(ctx, q, sqliteFile, func(scan func(...any) error) error { return scan(&file) }); err != nil {
		return nil, err
	}
	if file == "" { // in memory: no other process has the same
		file = salt
	}
	c.space = "sqlite|" + file
	replaces := make(map[*relation]bool)
	err := each(ctx, q, sqliteRelations, func(scan func(...any) error) error {
		var kind, definition string
		r := &relation{schema: "main", folded: true}
		if err := scan(&r.name, &kind, &definition, &r.triggers); err != nil {
			return err
		}
		r.root = tableTag(r.name)
		switch {
		case kind == "view":
			r.never = "what view " + r.name + " reads is not known"
		case strings.HasPrefix(strings.ToUpper(strings.TrimSpace(definition)), "CREATE VIRTUAL"):
			r.never = "table " + r.name + " is virtual"
		}
		if sqliteReplaces.MatchString(definition) { // then any write may delete rows
			r.triggers, replaces[r] = true, true
		}
		key := strings.ToLower(r.name)
		c.relations[key] = append(c.relations[key], r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = each(ctx, q, sqliteKeys, func(scan func(...any) error) error {
		var table, column string
		if err := scan(&table, &column); err != nil {
			return err
		}
		for _, r := range c.relations[strings.ToLower(table)] {
			if !replaces[r] {
				r.key = []keyColumn{{column, keyInteger}}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = each(ctx, q, sqliteForeignKeys, func(scan func(...any) error) error {
		var child, parent, onDelete, onUpdate string
		if err := scan(&child, &parent, &onDelete, &onUpdate); err != nil {
			return err
		}
		children, parents := c.relations[strings.ToLower(child)], c.relations[strings.ToLower(parent)]
		if len(children) == 0 || len(parents) == 0 {
			return nil
		}
		if sqliteActs(onDelete) {
			parents[0].onDelete = append(parents[0].onDelete, children[0])
		}
		if sqliteActs(onUpdate) {
			parents[0].onUpdate = append(parents[0].onUpdate, children[0])
		}
		return nil
	})
	return c, err
}

func sqliteActs(action string) bool {
	return strings.HasPrefix(action, "SET") || action == "CASCADE"
}

// readNothing is for dialects whose catalogue is not read: tables are what the
// statements call them.
func readNothing(dialect string) *catalog {
	return &catalog{trusting: true, space: fmt.Sprintf("%s|", dialect)}
}
