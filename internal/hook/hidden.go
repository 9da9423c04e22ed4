package hook

import (
	"context"

	"github.com/gorminfra/infra/internal/sqltext"
)

// hidden is something that calls a volatile function of the user's without a
// text showing a call: "products.stock" for stock(products), an operator, a cast.
type hidden struct {
	name   string          // the text has to mention it; "": it need not
	tables map[string]bool // by name: the text has to read one of them; nil: it need not
}

// hiddenQuery finds them, with the table for a function of its rows where only the
// table's own rows can be its argument. Extensions' own are taken for harmless.
const hiddenQuery = `WITH f AS (
	SELECT p.oid, p.proname, p.proargtypes[0] AS arg, p.pronargs, p.pronargdefaults, p.prokind
	FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
	WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND p.provolatile = 'v'
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
), rows AS (
	SELECT f.proname, c.oid, c.relkind, t.oid AS rowtype, t.typarray FROM f
	JOIN pg_catalog.pg_type t ON t.oid = f.arg LEFT JOIN pg_catalog.pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype
	LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
	WHERE f.prokind = 'f' AND f.pronargs >= 1 AND f.pronargs - f.pronargdefaults <= 1
	AND (t.typtype = 'c' OR b.typtype = 'c' OR t.typname IN ('record', 'anyelement', 'anycompatible', 'anynonarray', 'anycompatiblenonarray'))
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attname = f.proname AND NOT a.attisdropped)
), kin AS (
	WITH RECURSIVE k(top, member) AS (
		SELECT oid, oid FROM rows WHERE relkind <> 'c' AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
			WHERE a.attnum > 0 AND NOT a.attisdropped AND a.atttypid IN (rowtype, typarray))
		UNION SELECT k.top, i.inhrelid FROM k JOIN pg_catalog.pg_inherits i ON i.inhparent = k.member
	) SELECT * FROM k
)
SELECT r.proname, coalesce(c.relname, '') FROM rows r LEFT JOIN kin ON kin.top = r.oid LEFT JOIN pg_catalog.pg_class c ON c.oid = kin.member
UNION SELECT o.oprname, '' FROM f JOIN pg_catalog.pg_operator o ON o.oprcode = f.oid
UNION SELECT CASE WHEN k.castcontext = 'e' AND n.nspname <> 'pg_catalog' THEN t.typname ELSE '' END, '' FROM f
	JOIN pg_catalog.pg_cast k ON k.castfunc = f.oid JOIN pg_catalog.pg_type t ON t.oid = k.casttarget
	JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace`

// hides reports whether text may call something of all that it does not show.
func hides(all []hidden, text *sqltext.Statement) bool {
	for i := range all {
		if all[i].readBy(text) && text.Mentions(all[i].name) {
			return true
		}
	}
	return false
}

func (h *hidden) readBy(text *sqltext.Statement) bool {
	if h.tables == nil {
		return true
	}
	for _, t := range text.Reads {
		if h.tables[t.Name] {
			return true
		}
	}
	return false
}

func (h *Hub) listHidden(ctx context.Context) (all []hidden, err error) {
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	rows, err := h.Primary().physical.QueryContext(ctx, hiddenQuery)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	byName := make(map[string]int)
	for rows.Next() {
		var name, table string
		if err := rows.Scan(&name, &table); err != nil {
			return nil, err
		}
		i, known := byName[name]
		if !known {
			i = len(all)
			byName[name] = i
			all = append(all, hidden{name: name, tables: make(map[string]bool)})
		}
		if table == "" {
			all[i].tables = nil
		} else if all[i].tables != nil {
			all[i].tables[table] = true
		}
	}
	return all, rows.Err()
}
