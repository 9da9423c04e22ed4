package cachehook

import (
	"context"
	"database/sql"
	"slices"

	"github.com/gorminfra/infra/internal/sqltext"
)

// querier is a pool to read the catalogue with.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// What tells databases apart, and the settings of a session that change how a
// statement is understood or its values are written.
const pgIdentity = `SELECT current_database() || '|' || session_user || '|' || current_user || '|' ||
	string_agg(name || '=' || setting, '|' ORDER BY name)
	FROM pg_catalog.pg_settings WHERE name IN ('search_path', 'TimeZone', 'DateStyle', 'IntervalStyle', 'extra_float_digits',
	'bytea_output', 'lc_monetary', 'lc_numeric', 'lc_time', 'default_text_search_config', 'xmloption', 'xmlbinary',
	'standard_conforming_strings', 'array_nulls', 'transform_null_equals', 'row_security', 'server_version_num')`

const pgSystem = `SELECT system_identifier::text FROM pg_catalog.pg_control_system()`

const pgPath = `SELECT schema FROM unnest(pg_catalog.current_schemas(true)) WITH ORDINALITY AS p(schema, n) ORDER BY n`

// What a write runs of the user's: triggers, rules, and volatile functions in a table's
// defaults, checks and policies, or in those of its columns' domains; of extensions
// only triggers.
const pgRelations = `WITH RECURSIVE domains(relation, domain) AS (
	SELECT a.attrelid, t.oid FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
		WHERE t.typtype = 'd' AND a.attnum > 0 AND NOT a.attisdropped
	UNION SELECT d.relation, t.typbasetype FROM domains d JOIN pg_catalog.pg_type t ON t.oid = d.domain AND t.typtype = 'd'
), acting AS (
	SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
	WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass AND p.provolatile = 'v' AND p.pronamespace <> 'pg_catalog'::regnamespace
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
), acted(relation) AS (
	SELECT a.adrelid FROM acting x JOIN pg_catalog.pg_attrdef a ON x.classid = 'pg_catalog.pg_attrdef'::regclass AND a.oid = x.objid
	UNION SELECT k.conrelid FROM acting x JOIN pg_catalog.pg_constraint k ON x.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = x.objid
	UNION SELECT r.polrelid FROM acting x JOIN pg_catalog.pg_policy r ON x.classid = 'pg_catalog.pg_policy'::regclass AND r.oid = x.objid
	UNION SELECT d.relation FROM acting x JOIN pg_catalog.pg_constraint k ON x.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = x.objid
		JOIN domains d ON d.domain = k.contypid
	UNION SELECT d.relation FROM acting x JOIN domains d ON x.classid = 'pg_catalog.pg_type'::regclass AND d.domain = x.objid
)
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relpersistence::text,
	CASE WHEN c.relkind = 'v' THEN pg_catalog.pg_get_viewdef(c.oid) ELSE '' END,
	CASE WHEN c.relkind = 'v' AND NOT EXISTS (SELECT FROM pg_catalog.pg_options_to_table(c.reloptions) WHERE option_name = 'security_invoker'
		AND option_value::boolean) THEN c.relowner ELSE 0 END::bigint,
	EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D')
	OR EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_type <> '1')
	OR EXISTS (SELECT FROM acted WHERE relation = c.oid)
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')`

// kind 'i': a child and its parent in inheritance; 'v': a view and what it
// reads; 'd' and 'u': a child and the table whose DELETE or UPDATE changes it.
const pgEdges = `SELECT 'i', inhrelid::bigint, inhparent::bigint FROM pg_catalog.pg_inherits
	UNION SELECT 'v', w.ev_class::bigint, d.refobjid::bigint FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_depend d
		ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
		WHERE w.ev_type = '1' AND d.refobjid <> w.ev_class
	UNION SELECT 'd', conrelid::bigint, confrelid::bigint FROM pg_catalog.pg_constraint WHERE contype = 'f' AND confdeltype IN ('c', 'n', 'd')
	UNION SELECT 'u', conrelid::bigint, confrelid::bigint FROM pg_catalog.pg_constraint WHERE contype = 'f' AND confupdtype IN ('c', 'n', 'd')`

const pgFunctions = `SELECT n.nspname, p.proname, pg_catalog.bool_or(p.provolatile = 'v'), pg_catalog.bool_or(p.provolatile <> 'i'),
	pg_catalog.bool_or(b.body ~* '\m(current_setting|current_user|session_user|current_role)\M'), pg_catalog.bool_or(b.body ~* '\mset_config\s*\([^;]*,\s*false\s*\)'),
	pg_catalog.bool_or(p.provolatile = 'v' AND b.body ~* '\m((create|alter|drop)\s+(or|global|local|temp|temporary|unlogged|recursive|materialized|table|view|foreign|schema|domain|type|policy|rule|trigger|function|procedure|routine|operator|cast|index|unique|role|database)|into\s+(temp|temporary|unlogged))\M')
	FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
	CROSS JOIN LATERAL (SELECT coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc) AS body) b
	WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') GROUP BY 1, 2`

// The columns of primary keys with their types, whether different bytes are
// different values, and whether another unique index is on the same columns.
const pgKeys = `SELECT i.indrelid::bigint, a.attname, CASE WHEN t.typtype = 'b' AND t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname ELSE '' END,
	coalesce(l.collisdeterministic, true),
	EXISTS (SELECT FROM pg_catalog.pg_index o WHERE o.indrelid = i.indrelid AND o.indexrelid <> i.indexrelid AND o.indisunique
		AND (o.indkey::int2[])[0:o.indnkeyatts - 1] OPERATOR(pg_catalog.@>) (i.indkey::int2[])[0:i.indnkeyatts - 1]
		AND (o.indkey::int2[])[0:o.indnkeyatts - 1] OPERATOR(pg_catalog.<@) (i.indkey::int2[])[0:i.indnkeyatts - 1])
	FROM pg_catalog.pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n)
	JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
	LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
	WHERE i.indisprimary AND i.indisvalid AND k.n <= i.indnkeyatts ORDER BY 1, k.n`

func readKeys(ctx context.Context, q querier, byOID map[int64]*relation) error {
	hopeless := make(map[*relation]bool)
	err := each(ctx, q, pgKeys, func(scan func(...any) error) error {
		var of int64
		var column, typ string
		var exact, rival bool
		if err := scan(&of, &column, &typ, &exact, &rival); err != nil {
			return err
		}
		r := byOID[of]
		if r == nil {
			return nil
		}
		kind := map[string]keyKind{
			"int2": keyInteger, "int4": keyInteger, "int8": keyInteger, "uuid": keyUUID, "text": keyText, "varchar": keyText,
		}[typ]
		if kind == 0 || !exact {
			hopeless[r] = true
		}
		r.key, r.rival = append(r.key, keyColumn{column, kind}), rival
		return nil
	})
	for r := range hopeless {
		r.key = nil
	}
	return err
}

// readPostgres reads what is needed of Postgres' catalogue.
func readPostgres(ctx context.Context, q querier) (*catalog, error) {
	c := &catalog{relations: make(map[string][]*relation), functions: make(map[string]function)}
	if err := each(ctx, q, pgIdentity, func(scan func(...any) error) error { return scan(&c.space) }); err != nil {
		return nil, err
	}
	// Where it is not allowed, Config.Name and the database's name have to do.
	var system string
	_ = each(ctx, q, pgSystem, func(scan func(...any) error) error { return scan(&system) })
	c.space = "postgres|" + system + "|" + c.space

	err := each(ctx, q, pgPath, func(scan func(...any) error) error {
		var schema string
		err := scan(&schema)
		c.path = append(c.path, schema)
		return err
	})
	if err != nil {
		return nil, err
	}
	byOID := make(map[int64]*relation)
	err = each(ctx, q, pgRelations, func(scan func(...any) error) error {
		var oid int64
		var kind, persistence, definition string
		r := &relation{}
		if err := scan(&oid, &r.schema, &r.name, &kind, &persistence, &definition, &r.as, &r.triggers); err != nil {
			return err
		}
		r.describe(kind, persistence, definition)
		byOID[oid] = r
		c.relations[r.name] = append(c.relations[r.name], r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	var family [][2]*relation
	err = each(ctx, q, pgEdges, func(scan func(...any) error) error {
		var kind string
		var from, to int64
		if err := scan(&kind, &from, &to); err != nil {
			return err
		}
		child, parent := byOID[from], byOID[to]
		switch {
		case child == nil:
		case kind == "v" && parent == nil:
			child.never = "view " + child.name + " reads a system table"
		case parent == nil:
		case kind == "v":
			child.reads = append(child.reads, parent)
		case kind == "i":
			family = append(family, [2]*relation{child, parent})
		case kind == "d":
			parent.onDelete = append(parent.onDelete, child)
		case kind == "u":
			parent.onUpdate = append(parent.onUpdate, child)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	uniteFamilies(family)
	if err := readPolicies(ctx, q, byOID); err != nil {
		return nil, err
	}
	if err := readKeys(ctx, q, byOID); err != nil {
		return nil, err
	}
	if err := c.readFunctions(ctx, q, byOID); err != nil {
		return nil, err
	}
	return c, nil
}

// describe notes what kind of relation it is.
func (r *relation) describe(kind, persistence, definition string) {
	r.temporary = persistence == "t"
	switch {
	case r.temporary:
		r.never = "table " + r.name + " is temporary"
	case kind == "f":
		r.never = "table " + r.name + " belongs to another server"
	}
	if r.view = kind == "v"; !r.view {
		r.root = tablePrefix + r.schema + "." + r.name
		return
	}
	r.text = sqltext.Parse(definition)
	if r.never == "" && (!r.text.ReadOnlyIf(anyFunction) || r.text.Operation != sqltext.Select || r.text.Unstable && !r.text.Personal || r.text.System) {
		r.never = "view " + r.name + " depends on more than tables"
	}
}

func anyFunction(string) bool { return true }

// uniteFamilies gives all members of a family of inheritance one tag, and their
// members' worst: what is written through one shows through another.
func uniteFamilies(edges [][2]*relation) {
	families := make(map[*relation][]*relation)
	for _, e := range edges {
		a, b := families[e[0]], families[e[1]]
		if a == nil {
			a = []*relation{e[0]}
		}
		if b == nil {
			b = []*relation{e[1]}
		}
		if slices.Contains(a, e[1]) {
			continue
		}
		all := slices.Concat(b, a) // parents lead
		for _, r := range all {
			families[r] = all
		}
	}
	for r, all := range families {
		r.root, r.family = all[0].root, true
		if all[0] != r {
			continue
		}
		head := *r
		for _, m := range all {
			if head.never == "" {
				head.never = m.never
			}
			head.triggers = head.triggers || m.triggers
			head.onDelete = append(head.onDelete, m.onDelete...)
			head.onUpdate = append(head.onUpdate, m.onUpdate...)
		}
		for _, m := range all {
			m.never, m.triggers, m.onDelete, m.onUpdate = head.never, head.triggers, head.onDelete, head.onUpdate
		}
	}
}

// each calls row for each row of the query's result.
func each(ctx context.Context, q querier, query string, row func(scan func(...any) error) error) error {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
