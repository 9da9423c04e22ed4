package hook_test

import (
	"database/sql"
	"fmt"
	"reflect"

	"gorm.io/gorm"
)

// Whatever is asked of the rows of a write gives what it gives without a plugin.
func init() {
	behaviours["G12"] = append(behaviours["G12"], scenario{name: "rows-of-a-write", run: func(e *env) {
		const text = `INSERT INTO companies (name) SELECT 'c' || g FROM generate_series(1, 2) g RETURNING id > 0 AS b, 7::smallint AS s, 8::bigint AS l,
			1.5::numeric(7, 3) AS n, 2.5::float8 AS f, name, 'v'::varchar(9) AS v, '\x0102'::bytea AS raw, '2024-05-06 07:08:09+00'::timestamptz AS at,
			'2024-05-06'::date AS d, '{1,2}'::int[] AS list, '{"a": 1}'::jsonb AS j, NULL::text AS null, '00000000-0000-0000-0000-000000000001'::uuid AS u, '1 day'::interval AS i`
		for range 2 { // closed once in the middle, read to the end once
			rows, err := e.db.Raw(text).Rows()
			e.must(err)
			names, err := rows.Columns()
			e.got("columns", err, names)
			types, err := rows.ColumnTypes()
			e.must(err)
			for _, c := range types {
				length, hasLength := c.Length()
				precision, scale, hasPrecision := c.DecimalSize()
				nullable, hasNullable := c.Nullable()
				e.note("%s %s %v %d %v %d %d %v %v %v", c.Name(), c.DatabaseTypeName(), c.ScanType(), length, hasLength, precision, scale, hasPrecision, nullable, hasNullable)
			}
			for rows.Next() {
				for _, dest := range []any{new(any), new(string), new(sql.RawBytes), new([]byte), new(sql.NullString), new(int), new(bool)} {
					for i := range names {
						into := make([]any, len(names))
						for j := range into {
							into[j] = new(any)
						}
						into[i] = reflect.New(reflect.TypeOf(dest).Elem()).Interface()
						err := rows.Scan(into...)
						v := reflect.ValueOf(into[i]).Elem().Interface()
						e.note("%s into %T: %v, %T %v", names[i], dest, errorText(err), v, fmt.Sprint(v))
					}
				}
			}
			e.got("end", rows.Err(), rows.NextResultSet(), rows.Close())
			_, err = rows.Columns()
			e.got("columns of closed rows", err)
		}
		var name string
		e.got("no row", e.db.Raw("DELETE FROM companies WHERE id = -1 RETURNING name").Row().Scan(&name))
		e.got("raw bytes of a row", e.db.Raw("DELETE FROM companies WHERE id > 0 RETURNING name").Row().Scan(new(sql.RawBytes)))
		e.got("error", e.db.Raw("INSERT INTO accounts (id) VALUES (1), (1) RETURNING id").Row().Scan(&name))
		e.note("%d left", e.count("SELECT count(*) FROM companies"))
		var list []Company
		e.did("scan", e.db.Raw("INSERT INTO companies (name) VALUES ('x'), ('y') RETURNING name").Scan(&list), list)
		e.must(e.db.Connection(func(tx *gorm.DB) error {
			e.did("scan on a connection", tx.Raw("INSERT INTO companies (name) VALUES ('z') RETURNING name").Scan(&list), list)
			return nil
		}))
	}})
}
