package cachehook

import (
	"context"

	"github.com/gorminfra/infra/internal/sqltext"
)

// rowSecurity is a table's row-level security: which rows a query shows is decided by
// policies, whose expressions may look at the session and at other tables.
type rowSecurity struct {
	sum    string               // of all policies: another sum, another answer
	reads  []*relation          // what the policies for reads look into
	texts  []*sqltext.Statement // their expressions, as queries of the table
	exempt int64                // the owner, to whom no policy applies; 0: they apply to all
	never  string               // why it cannot be cached even for one tenant, or ""
}

// pgPolicies has a row for each policy that decides about reads, and one without
// an expression for each table. Expressions are written as queries, so that they
// can be read as such.
const pgPolicies = `SELECT c.oid::bigint, coalesce(p.oid, 0)::bigint, CASE WHEN c.relforcerowsecurity THEN 0 ELSE c.relowner END::bigint,
	pg_catalog.concat_ws('|', c.relforcerowsecurity, p.polname, p.polcmd, p.polpermissive, p.polroles, pg_catalog.pg_get_expr(p.polqual, c.oid)),
	coalesce('SELECT (' || pg_catalog.pg_get_expr(p.polqual, c.oid) || ') FROM ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), '')
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	LEFT JOIN pg_catalog.pg_policy p ON p.polrelid = c.oid AND p.polcmd IN ('r', '*')
	WHERE c.relrowsecurity AND c.relkind IN ('r', 'p') ORDER BY 1, 2`

// What the expressions of policies look into. That of a write is among them
// where one policy is for all commands, which only makes more of them.
const pgPolicyReads = `SELECT DISTINCT p.polrelid::bigint, d.refobjid::bigint FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_depend d
	ON d.classid = 'pg_catalog.pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
	WHERE p.polcmd IN ('r', '*') AND d.refobjid <> p.polrelid`

// readPolicies reads the row-level security of all tables.
func readPolicies(ctx context.Context, q querier, byOID map[int64]*relation) error {
	err := each(ctx, q, pgPolicies, func(scan func(...any) error) error {
		var of, policy, exempt int64
		var sum, query string
		if err := scan(&of, &policy, &exempt, &sum, &query); err != nil {
			return err
		}
		r := byOID[of]
		if r == nil {
			return nil
		}
		if r.security == nil {
			r.security = &rowSecurity{exempt: exempt}
		}
		r.security.sum = string(appendString([]byte(r.security.sum), sum))
		if query != "" {
			r.security.add(r, sqltext.Parse(query))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return each(ctx, q, pgPolicyReads, func(scan func(...any) error) error {
		var of, what int64
		if err := scan(&of, &what); err != nil {
			return err
		}
		r := byOID[of]
		if r == nil || r.security == nil {
			return nil
		}
		if read := byOID[what]; read != nil {
			r.security.reads = append(r.security.reads, read)
		} else {
			r.security.never = "a policy of table " + r.name + " reads what is no table of the user's"
		}
		return nil
	})
}

// add notes the expression of a policy. It may ask who asks, for that is what a
// tenant stands for.
func (g *rowSecurity) add(of *relation, text *sqltext.Statement) {
	switch {
	case text.Operation != sqltext.Select || !text.ReadOnlyIf(anyFunction) || text.Unstable && !text.Personal:
		g.never = "a policy of table " + of.name + " depends on more than tables and who asks"
	case text.System:
		g.never = "a policy of table " + of.name + " reads a system table"
	}
	g.texts = append(g.texts, text)
}
